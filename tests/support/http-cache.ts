/** What a binary cache on HTTP gives for store paths, checked by the hashes that its narinfos state. */
import { expect } from "bun:test";
import { parseHash } from "../../src/nar/hash.ts";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import type { CliServer } from "./cli.ts";
import type { TestNix } from "./nix.ts";

export interface Served {
  readonly narinfo: string;
  /** SHA-256 of the compressed NAR, in hexadecimal. */
  readonly file: string;
}

/** Narinfo and NAR of every path, by path. Fails when one is absent, or differs from what Nix has recorded. */
export async function downloadAll(
  server: CliServer,
  paths: readonly string[],
  nix: TestNix,
): Promise<Map<string, Served>> {
  const recorded = await nix.run("nix-store", ["--query", "--hash", ...paths]);
  const narHashes = recorded.trim().split("\n");
  const served = new Map<string, Served>();
  for (const [index, path] of paths.entries()) {
    const answer = await server.get(`/${hashPart(path)}.narinfo`);
    expect([path, answer.status]).toEqual([path, 200]);
    const narinfo = await answer.text();
    const info = parseNarInfo(narinfo);
    expect(info.storePath).toBe(path);
    expect(info.narHash).toBe(narHashes[index] as string);
    const nar = await server.get(`/${info.url}`);
    expect([path, nar.status]).toEqual([path, 200]);
    const bytes = await nar.bytes();
    const file = sha256(bytes);
    expect(file).toBe(Buffer.from(parseHash(info.fileHash ?? "", "FileHash").bytes).toString("hex"));
    expect(bytes.length).toBe(info.fileSize as number);
    expect(sha256(Bun.zstdDecompressSync(bytes))).toBe(
      Buffer.from(parseHash(info.narHash, "NarHash").bytes).toString("hex"),
    );
    served.set(path, { narinfo, file });
  }
  return served;
}

/** The 32 characters by which a store path's narinfo is asked for. */
export function hashPart(storePath: string): string {
  return storePath.slice("/nix/store/".length, "/nix/store/".length + 32);
}

function sha256(bytes: Uint8Array): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}
