/**
 * Whether an uploaded NAR file is what its narinfo says. FileHash and FileSize are, by the file's name; the NAR
 * inside can be looked at where Bun unpacks its compression. Of the others Nix clients check NarHash themselves.
 */
import { messageOf } from "../errors.ts";
import { encodeBase32 } from "../nar/base32.ts";
import type { NarInfo } from "../nar/narinfo.ts";
import { unpack } from "./body.ts";
import { Refusal } from "./refusal.ts";

const FORMATS: Readonly<Record<string, Bun.CompressionFormat>> = { gzip: "gzip", zstd: "zstd", br: "brotli" };

/** @throws Refusal (400) when the NAR in `file` has another hash or size, or cannot be unpacked. */
export async function checkNar(file: string, info: NarInfo): Promise<void> {
  const format = FORMATS[info.compression];
  if (info.compression !== "none" && format === undefined) return;
  const bytes = Bun.file(file).stream();
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  try {
    for await (const chunk of format === undefined ? bytes : unpack(bytes, format)) {
      hasher.update(chunk);
      size += chunk.length;
      if (size > info.narSize) throw new Refusal(400, `the NAR is longer than NarSize: ${info.narSize}`);
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(400, `the NAR cannot be unpacked as ${info.compression}: ${messageOf(error)}`);
  }
  if (size < info.narSize) throw new Refusal(400, `the NAR has ${size} bytes, NarSize says ${info.narSize}`);
  const found = `sha256:${encodeBase32(hasher.digest() as Uint8Array)}`;
  if (found !== info.narHash)
    throw new Refusal(400, `the NAR's hash is ${found}, NarHash says ${info.narHash}`);
}
