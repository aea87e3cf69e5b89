/**
 * A private Nix for one test: own configuration, store, state and caches in a temporary folder, so that
 * nothing is left behind and nothing that Nix remembers leaks from one test to another.
 */
import { describe, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** `describe` where there is Nix. In CI a missing Nix must not pass for a success; elsewhere it skips. */
export const describeWithNix: (name: string, body: () => void) => void =
  Bun.which("nix") !== null && Bun.which("nix-store") !== null
    ? describe
    : process.env.CI === "true"
      ? (name) =>
          test(`${name}: Nix is there`, () => {
            throw new Error("CI=true and there is no Nix: these tests must not be skipped");
          })
      : describe.skip;

export class PrivateNix {
  readonly folder = realpathSync(mkdtempSync(join(tmpdir(), "nixcache-nix-")));
  /** The store directory: not /nix/store, so that building needs no chroot. */
  readonly storeDir = join(this.folder, "store");
  readonly #environment: Record<string, string>;

  constructor() {
    for (const name of ["conf", "home"]) mkdirSync(join(this.folder, name));
    writeFileSync(
      join(this.folder, "conf/nix.conf"),
      "build-users-group =\nsandbox = false\nsubstituters =\nexperimental-features = nix-command flakes\n",
    );
    this.#environment = {
      PATH: process.env.PATH ?? "",
      HOME: join(this.folder, "home"),
      XDG_CACHE_HOME: join(this.folder, "cache"),
      NIX_CONF_DIR: join(this.folder, "conf"),
      NIX_STORE_DIR: this.storeDir,
      NIX_STATE_DIR: join(this.folder, "state"),
      NIX_LOG_DIR: join(this.folder, "log"),
      NIX_REMOTE: "",
    };
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Runs Nix and returns what it printed, without the newline at the end. Fails when Nix does. */
  run(command: string[], stdin = ""): string {
    const result = this.try(command, stdin);
    if (result.exitCode !== 0)
      throw new Error(`${command.join(" ")}: exit code ${result.exitCode}\n${result.stderr}`);
    return result.stdout;
  }

  try(command: string[], stdin = ""): { exitCode: number; stdout: string; stderr: string } {
    const { exitCode, stdout, stderr } = Bun.spawnSync(command, {
      env: this.#environment,
      stdin: new TextEncoder().encode(stdin),
    });
    return { exitCode, stdout: stdout.toString().replace(/\n$/, ""), stderr: stderr.toString() };
  }

  /** The SHA-256 and the size of what a command prints, which is not kept. */
  async hashOutput(command: string[]): Promise<{ sha256: string; size: number }> {
    const child = Bun.spawn(command, { env: this.#environment, stdout: "pipe", stderr: "inherit" });
    const hasher = new Bun.CryptoHasher("sha256");
    let size = 0;
    for await (const chunk of child.stdout) {
      hasher.update(chunk);
      size += chunk.length;
    }
    if ((await child.exited) !== 0) throw new Error(`${command.join(" ")} failed`);
    return { sha256: hasher.digest("hex"), size };
  }

  remove(): void {
    // Nix takes away the write permission of what is in a store.
    Bun.spawnSync(["chmod", "-R", "u+w", this.folder]);
    rmSync(this.folder, { recursive: true, force: true });
  }
}
