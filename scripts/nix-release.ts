/**
 * Writes `nix/release.json`, which says where the package nixcache-bin comes from and what it hashes to:
 * `bun run nix-release TAG RELEASES SHA256SUMS`. The release workflow does so once a release is out, and commits it.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { runScript } from "./process.ts";

/** Systems of Nix that there are archives for; the one for musl is no system of its own. */
export const SYSTEMS = ["x86_64-linux", "aarch64-linux", "x86_64-darwin", "aarch64-darwin"] as const;

/**
 * @param tag such as `v1.2.3`
 * @param releases such as `https://github.com/OWNER/nixcache/releases/download`
 * @param sums the text of SHA256SUMS
 * @throws when an archive is missing
 */
export function nixRelease(tag: string, releases: string, sums: string): string {
  const version = /^v(\d+\.\d+\.\d+\S*)$/.exec(tag)?.[1];
  if (version === undefined) throw new Error(`got ${JSON.stringify(tag)}, expected a tag such as v1.2.3`);
  const hashes = new Map(
    [...sums.matchAll(/^([0-9a-f]{64}) [ *](\S+)$/gm)].map(([, hash, name]) => [name, hash]),
  );
  const systems = SYSTEMS.map((system) => {
    const archive = `nixcache-${system}.tar.gz`;
    const sha256 = hashes.get(archive);
    if (sha256 === undefined) throw new Error(`SHA256SUMS: ${archive} is not in it`);
    return [system, { url: `${releases}/${tag}/${archive}`, sha256 }];
  });
  return `${JSON.stringify({ version, systems: Object.fromEntries(systems) }, undefined, 2)}\n`;
}

if (import.meta.main) {
  await runScript(async () => {
    const { positionals } = parseArgs({ allowPositionals: true });
    const [tag, releases, file] = positionals;
    if (tag === undefined || releases === undefined || file === undefined)
      throw new Error("usage: bun run nix-release TAG RELEASES SHA256SUMS");
    // Of the checkout where it runs.
    const text = nixRelease(tag, releases, await Bun.file(file).text());
    await Bun.write(join(process.cwd(), "nix", "release.json"), text);
  });
}
