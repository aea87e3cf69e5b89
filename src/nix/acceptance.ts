/** Whether Nix, configured as it is, would take a path from a binary cache: its own answer, with its own keys. */
import { rm } from "node:fs/promises";
import { makeTemporaryFolder } from "../system/own-folder.ts";
import { EXPERIMENTAL } from "./ask.ts";
import type { RunCommand } from "./command.ts";
import { errorIn } from "./error-text.ts";
import type { Environment } from "./location.ts";

export type Acceptance =
  | { readonly kind: "accepted" }
  /** It is there, and no key that Nix trusts has signed it. */
  | { readonly kind: "untrusted" }
  | { readonly kind: "failed"; readonly reason: string };

/** `nix store verify` adds these up. https://nix.dev/manual/nix/latest/command-ref/new-cli/nix3-store-verify */
const UNTRUSTED = 2;

/** @param folder for temporary files */
export async function askAcceptance(
  run: RunCommand,
  env: Environment,
  ask: { path: string; url: string; folder: string; signal?: AbortSignal },
): Promise<Acceptance> {
  // Nix remembers for an hour what a cache had not; neither may that mislead us, nor our question be remembered.
  const cache = makeTemporaryFolder(ask.folder, "nixcache-ask-");
  try {
    const argv = ["nix", ...EXPERIMENTAL, "store", "verify", "--no-contents", "--store", ask.url, ask.path];
    const { exitCode, stderr } = await run(argv, { ...env, XDG_CACHE_HOME: cache }, ask.signal);
    ask.signal?.throwIfAborted();
    if (exitCode === 0) return { kind: "accepted" };
    if (exitCode === UNTRUSTED) return { kind: "untrusted" };
    return { kind: "failed", reason: errorIn(stderr) || `nix ended with status ${exitCode}` };
  } finally {
    await rm(cache, { recursive: true, force: true });
  }
}
