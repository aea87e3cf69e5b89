/**
 * The demo's first Nix store, and what is built in it.
 *
 * Where a Nix daemon runs, it builds in the machine's store as it is set up. Otherwise (a container with Debian's
 * nix-bin) a *chroot store* in the temporary folder takes its place: its paths say `/nix/store/…`, its files are
 * elsewhere, and it goes away with the folder. Nix builds in one with Linux namespaces; where these are forbidden
 * the machine's store is the last resort.
 */
import { existsSync } from "node:fs";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Execute } from "./execute.ts";

export interface DemoNix {
  /** For Nix's commands and for nixcache. */
  readonly env: Record<string, string>;
  /** For the person. */
  readonly description: string;
  /** Whether built paths stay behind in the machine's store. */
  readonly leavesPaths: boolean;
}

export const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

const DAEMON_SOCKET = "/nix/var/nix/daemon-socket/socket";

/**
 * Builds the demo's paths in the first store that works.
 *
 * @returns the store and the path that refers to all others.
 * @throws the error of the last store that was tried.
 */
export async function buildDemoPaths(
  folder: string,
  execute: Execute,
): Promise<{ nix: DemoNix; hello: string }> {
  const expression = await writeExpression(folder);
  let failure: unknown;
  for (const nix of await candidates(folder)) {
    try {
      const argv = ["nix-build", "--no-out-link", "--quiet", "--option", "substituters", "", expression];
      const hello = (await execute(argv, nix.env)).trim();
      return { nix, hello };
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}

async function candidates(folder: string): Promise<DemoNix[]> {
  const machine = { description: "in the machine's Nix store", leavesPaths: true };
  if (existsSync(DAEMON_SOCKET)) return [{ env: {}, ...machine }];

  // What the sandbox of a chroot store shows of the machine: the shell and its libraries.
  const shown = ["/bin", "/usr", "/lib", "/lib64"].filter((path) => existsSync(path));
  const settings = ["build-users-group =", "sandbox = false", `sandbox-paths = ${shown.join(" ")}`];
  const conf = join(folder, "nix-conf");
  await mkdir(conf);
  await writeFile(join(conf, "nix.conf"), `${settings.join("\n")}\n`);
  const chroot: DemoNix = {
    env: { NIX_CONF_DIR: conf, NIX_REMOTE: join(folder, "first-store") },
    description: "in a Nix store of its own",
    leavesPaths: false,
  };
  // As root without build users Nix refuses to build unless it is told that there are none.
  const isRoot = process.getuid?.() === 0;
  return [chroot, { env: isRoot ? { NIX_CONF_DIR: conf } : {}, ...machine }];
}

/**
 * A program that refers to a tool and to a text: an executable, a symbolic link, references, a self-reference.
 * Everything is made by the shell's own means, as a sandbox may have no other program.
 *
 * The program looks for its references in the store it was started from, so it can show that they came along
 * without `/nix/store` being there.
 */
async function writeExpression(folder: string): Promise<string> {
  const tools = join(folder, "tools");
  await mkdir(join(tools, "bin"), { recursive: true });
  await writeFile(join(tools, "bin", "say"), '#!/bin/sh\nwhile read -r line; do echo "$line"; done < "$1"\n');
  await chmod(join(tools, "bin", "say"), 0o755);
  await symlink("say", join(tools, "bin", "tell"));
  const file = join(folder, "demo.nix");
  await writeFile(
    file,
    `let
  message = builtins.toFile "nixcache-demo-message" "Hello from a store path that came through nixcache.\\n";
  tools = builtins.path { name = "nixcache-demo-tools"; path = ./tools; };
in derivation {
  name = "nixcache-demo-hello";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-e" "-c" ''
    {
      echo '#!/bin/sh'
      echo "# $out"
      echo 'store=\${"$"}{0%/nix/store/*}'
      echo 'exec "$store\${tools}/bin/tell" "$store\${message}"'
    } > $out
  '' ];
}
`,
  );
  return file;
}
