/** Paths of a Nix store that is not there: their NARs are made of their names. */

import { encodeBase32 } from "../../src/nar/base32.ts";
import type { NarInfo } from "../../src/nar/narinfo.ts";
import type { PathInfo } from "../../src/nix/store.ts";
import type { Dump } from "../../src/publish/nar-file.ts";
import { storeHash } from "./protocol.ts";

/** Deterministic bytes that do not compress: xorshift32, seeded by the name. Some 0.5 ms a MiB. */
export function noise(name: string, size: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(size / 4));
  let word = Bun.hash.crc32(name) || 1;
  for (let at = 0; at < words.length; at++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[at] = word;
  }
  return new Uint8Array(words.buffer, 0, size);
}

export function pathOf(name: string): string {
  return `/nix/store/${storeHash(name)}-${name}`;
}

export interface TestPath {
  readonly name: string;
  /** Names. */
  readonly references?: readonly string[];
  /** Bytes of the NAR. */
  readonly size?: number;
  /** Names of paths with the same NAR share it. */
  readonly content?: string;
}

export function pathInfo({ name, references = [], size = 500, content = name }: TestPath): PathInfo {
  const nar = noise(content, size);
  return {
    path: pathOf(name),
    narHash: `sha256:${encodeBase32(new Bun.CryptoHasher("sha256").update(nar).digest())}`,
    narSize: size,
    references: references.map(pathOf).sort(),
    sigs: [],
    ultimate: true,
    registrationTime: 0,
  };
}

/** A closure, which must be given references first, and how to dump it. Names in `broken` give other bytes. */
/** What a cache that has this very build says of it. */
export function narInfoOf(path: TestPath, sigs: readonly string[] = []): NarInfo {
  const { path: storePath, narHash, narSize, references } = pathInfo(path);
  return {
    ...{ storePath, narHash, narSize, url: "nar/x.nar", compression: "none", sigs: [...sigs] },
    references: references.map((reference) => reference.slice("/nix/store/".length)).sort(),
  };
}

export function testClosure(paths: readonly TestPath[], broken: ReadonlySet<string> = new Set()) {
  const closure = paths.map(pathInfo);
  const contents = new Map(paths.map((path) => [pathOf(path.name), path]));
  const dumped: string[] = [];
  const dump: Dump = async function* ({ path }) {
    const { name, size = 500, content = name } = contents.get(path) as TestPath;
    dumped.push(name);
    const nar = noise(broken.has(name) ? `${content} changed` : content, size);
    // Chunks of an odd length, so that frames begin and end inside them.
    for (let at = 0; at < nar.length; at += 300_007) yield nar.slice(at, at + 300_007);
  };
  return { closure, dump, dumped };
}
