/**
 * A post-build hook: a program that Nix runs after each build, which tells us what was built where we cannot look
 * into the store's database. https://nix.dev/manual/nix/latest/advanced-topics/post-build-hook
 *
 * Nix waits for it, and begins no further build when it fails. So it talks to nobody: it writes a file with the
 * paths into a folder, by the shell's own means, and never fails. Whoever reads the folder may be slow, or not there.
 */
import { EXPERIMENTAL } from "./ask.ts";
import { type RunCommand, runCommand } from "./command.ts";
import type { Environment } from "./location.ts";

/**
 * The text of a hook that writes the outputs of each build, one a line, to the file in `folder` that has the name of
 * the derivation. A daemon runs it as root, and `folder` may be gone by then. The file is empty where Nix does not say
 * what the outputs are, as 2.8.0 (https://github.com/NixOS/nix/issues/6446).
 */
export function hookScript(folder: string): string {
  const quoted = `'${folder.replaceAll("'", "'\\''")}'`;
  return `#!/bin/sh
# Made by nixcache. Nix begins no further build when this fails, so it never does.
(
  umask 022
  for path in $OUT_PATHS; do printf '%s\\n' "$path"; done > ${quoted}/"\${DRV_PATH##*/}"
) 2> /dev/null
exit 0
`;
}

/**
 * The hook that is set already; undefined when there is none, or Nix does not say. It must not be replaced.
 *
 * @throws `nix-store` when Nix cannot be started.
 */
export async function configuredHook(
  env: Environment,
  run: RunCommand = runCommand,
): Promise<string | undefined> {
  // The first is what Nix has from 2.20 on, where the second goes away.
  for (const words of [["config", "show"], ["show-config"]]) {
    const { exitCode, stdout } = await run(["nix", ...EXPERIMENTAL, ...words, "--json"], env);
    if (exitCode !== 0) continue;
    try {
      const hook = JSON.parse(stdout)["post-build-hook"]?.value;
      return typeof hook === "string" && hook !== "" ? hook : undefined;
    } catch {
      // Not the JSON that was asked for.
    }
  }
  return undefined;
}
