/** A real Nix whose evaluations are counted by a program that stands before it in PATH. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DiscoverOptions, discover } from "../../src/build/discover.ts";
import type { Discovery } from "../../src/build/discovery.ts";
import { type TestNix, withNix } from "./nix.ts";

export const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;

export interface CountedNix {
  readonly nix: TestNix;
  /** @param flake the text of its file */
  find(flake: string, options?: Partial<DiscoverOptions>): Promise<Discovery & { lines: string[] }>;
  /** Evaluations since the last call. */
  evaluations(): number;
}

export async function withCountedNix(body: (counted: CountedNix) => Promise<void>): Promise<void> {
  await withNix(async (nix) => {
    const bin = join(nix.folder, "bin");
    const log = join(nix.folder, "calls");
    mkdirSync(bin);
    writeFileSync(
      join(bin, "nix"),
      `#!/bin/sh\nprintf "%s %s\\\\n" "$3" "$4" >> ${log}\nexec ${Bun.which("nix")} "$@"\n`,
    );
    chmodSync(join(bin, "nix"), 0o755);
    const env = { ...nix.env, PATH: `${bin}:${nix.env.PATH}` };
    let flakes = 0;
    await body({
      nix,
      async find(text, options = {}) {
        const folder = join(nix.folder, `flake-${++flakes}`);
        mkdirSync(folder);
        writeFileSync(join(folder, "flake.nix"), text);
        const lines: string[] = [];
        const found = await discover({
          source: { flake: `path:${folder}` },
          system: SYSTEM,
          env,
          cwd: nix.folder,
          temporary: nix.folder,
          realPath: (path) => nix.realPath(path),
          onLine: (line) => lines.push(line),
          ...options,
        });
        return { ...found, lines };
      },
      evaluations() {
        const text = existsSync(log) ? readFileSync(log, "utf8") : "";
        writeFileSync(log, "");
        const calls = text.split("\n").filter((line) => line !== "");
        // The first call of each search to a Nix before 2.19 only finds out that it is one.
        return calls.filter((line) => !(text.includes('#""') && line.endsWith("#."))).length;
      },
    });
  });
}

export const attributes = (list: readonly { attribute: string }[]) => list.map(({ attribute }) => attribute);
export const reasons = (list: readonly { attribute: string; reason: string }[]) =>
  Object.fromEntries(list.map(({ attribute, reason }) => [attribute, reason]));
