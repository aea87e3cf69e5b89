/**
 * What stands behind a NAR in its blob: its listing, and the log of the build that it came from. They cost no
 * request of their own there, and a run that starts again makes the same blobs.
 */
import type { Part } from "../cache/part.ts";
import type { PathInfo } from "../nix/store.ts";
import type { BlobWriter } from "../oci/spool.ts";
import type { BlobSource } from "../oci/store.ts";
import type { NarListing } from "./listing.ts";
import type { Compressor } from "./nar-file.ts";

/** Which build logs go behind which NAR, by its hash: how to read each, by the base name of the derivation. */
export type LogsByNar = ReadonlyMap<string, ReadonlyMap<string, () => Uint8Array | undefined>>;

export interface PartsBeside {
  readonly listing: Part | undefined;
  /** Build logs, by the base name of the derivation. */
  readonly logs: ReadonlyMap<string, Part>;
}

interface BesideContext {
  readonly compressor: Compressor;
  readonly logs: LogsByNar;
}

/** A piece of a blob in the making: a part once the blob's digest is known. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

export function partOf(blob: BlobSource, { offset, length }: Piece): Part {
  return { blob: blob.digest, size: blob.size, offset, length };
}

/** What stands behind a NAR in its blob, compressed. */
interface Beside {
  readonly listing: Uint8Array | undefined;
  /** By the base name of the derivation. */
  readonly logs: ReadonlyMap<string, Uint8Array>;
}

export interface BesidePieces {
  readonly listing: Piece | undefined;
  readonly logs: ReadonlyMap<string, Piece>;
}

export async function readBeside(
  path: PathInfo,
  listing: NarListing,
  context: BesideContext,
): Promise<Beside> {
  const { compressor, logs } = context;
  const json = listing.finish();
  const compressedLogs = new Map<string, Uint8Array>();
  for (const [derivation, read] of logs.get(path.narHash) ?? []) {
    const log = read();
    if (log !== undefined) compressedLogs.set(derivation, await compressor.frame(log));
  }
  return {
    listing: json === undefined ? undefined : await compressor.frame(Buffer.from(json)),
    logs: compressedLogs,
  };
}

export function sizeOf({ listing, logs }: Beside): number {
  return [listing, ...logs.values()].reduce((sum, bytes) => sum + (bytes?.length ?? 0), 0);
}

export async function writeBeside({ listing, logs }: Beside, writer: BlobWriter): Promise<BesidePieces> {
  const write = async (bytes: Uint8Array): Promise<Piece> => {
    const offset = writer.size;
    await writer.write(bytes);
    return { offset, length: bytes.length };
  };
  const pieces = new Map<string, Piece>();
  const listed = listing && (await write(listing));
  for (const [derivation, log] of logs) pieces.set(derivation, await write(log));
  return { listing: listed, logs: pieces };
}

export function besideParts(blob: BlobSource, { listing, logs }: BesidePieces): PartsBeside {
  return {
    listing: listing && partOf(blob, listing),
    logs: new Map([...logs].map(([derivation, piece]) => [derivation, partOf(blob, piece)])),
  };
}
