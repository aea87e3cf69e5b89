/**
 * The store that Nix uses where no `--store` says another: its setting `store`, out of nix.conf and NIX_CONFIG, of
 * which NIX_REMOTE is only the default. https://nix.dev/manual/nix/latest/command-ref/conf-file#conf-store
 */
import { NixcacheError, preview } from "../errors.ts";
import type { RunCommand } from "./command.ts";
import { readSettings } from "./configuration.ts";
import type { Environment } from "./location.ts";

/**
 * As `--store` takes it; undefined where it is the one that NIX_REMOTE names, or there is no Nix to ask.
 *
 * @throws `nix-store` when Nix cannot read its configuration
 */
export async function configuredStore(
  run: RunCommand,
  env: Environment,
  signal?: AbortSignal,
): Promise<string | undefined> {
  if (Bun.which("nix", { PATH: env.PATH ?? "" }) === null) return undefined;
  const settings = await readSettings(run, env, { of: "user", ...(signal && { signal }) });
  return parseStoreSetting(settings);
}

/** @param settings what `nix config show --json` prints */
export function parseStoreSetting(settings: unknown): string | undefined {
  const { value, defaultValue } =
    (settings as { store?: { value?: unknown; defaultValue?: unknown } }).store ?? {};
  if (value === undefined || value === defaultValue || value === "") return undefined;
  if (typeof value === "string") return value;
  throw new NixcacheError("nix-store", `Nix's configuration: got store = ${preview(value)}, expected a text`);
}
