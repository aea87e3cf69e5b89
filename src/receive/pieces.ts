/**
 * Files of the journal on their way into blobs: small ones share packs, as a blob each would cost two write requests
 * each; a large one is a blob, or as many as its size needs. The bytes stay as they were sent.
 */

import type { Part } from "../cache/part.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { discardBlob } from "../oci/spool.ts";
import type { BlobSource } from "../oci/store.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import type { GenerationWriter } from "../protocol/generation.ts";
import { writeIfAbsent } from "../protocol/write-if-absent.ts";

/** Files up to this many bytes go into packs, and a pack has at most so many; as publish does. */
const SMALL_BYTES = 1024 * 1024;
const PACK_BYTES = 8 * 1024 * 1024;

/** Packs and large files under way at once. */
const AT_ONCE = 4;

export interface Piece {
  readonly digest: Digest;
  readonly size: number;
  readonly file: string;
}

export interface PieceContext extends ProtocolContext {
  /** Bytes after which a large file goes on in another blob. */
  readonly partBytes: number;
}

/** Stores each piece and answers where it is, by digest. @throws when the store fails. */
export async function storePieces(
  pieces: readonly Piece[],
  context: PieceContext,
  generation: GenerationWriter,
): Promise<ReadonlyMap<Digest, readonly Part[]>> {
  const places = new Map<Digest, readonly Part[]>();
  await mapConcurrently(planBlobs(pieces), AT_ONCE, async (group) => {
    const [first] = group;
    if (first === undefined) return;
    if (group.length > 1) {
      const parts = await storePack(group, context, generation);
      for (const [index, part] of parts.entries()) places.set((group[index] as Piece).digest, [part]);
    } else places.set(first.digest, await storeAlone(first, context, generation));
  });
  return places;
}

/** Groups that share a blob, in the order of the pieces, each piece once. */
export function planBlobs(pieces: readonly Piece[]): Piece[][] {
  const groups: Piece[][] = [];
  let pack: Piece[] = [];
  let packed = 0;
  for (const piece of new Map(pieces.map((piece) => [piece.digest, piece])).values()) {
    if (piece.size > SMALL_BYTES) {
      groups.push([piece]);
      continue;
    }
    if (pack.length === 0 || packed + piece.size > PACK_BYTES) {
      pack = [];
      packed = 0;
      groups.push(pack);
    }
    pack.push(piece);
    packed += piece.size;
  }
  return groups;
}

async function storePack(
  pieces: readonly Piece[],
  context: PieceContext,
  generation: GenerationWriter,
): Promise<Part[]> {
  const writer = context.spool.writer();
  const offsets: number[] = [];
  for (const { digest, file } of pieces) {
    const bytes = await Bun.file(file).bytes();
    if (digestOf(bytes) !== digest) {
      throw new NixcacheError("corrupt", `${file}: the bytes in the journal have changed`, {
        hint: "Check the disk, remove the file, and upload its path again.",
      });
    }
    offsets.push(writer.size);
    await writer.write(bytes);
  }
  const blob = await writer.finish();
  await storeBlob(blob, context, generation);
  return pieces.map(({ size }, index) => {
    return { blob: blob.digest, size: blob.size, offset: offsets[index] as number, length: size };
  });
}

async function storeAlone(
  { digest, size, file }: Piece,
  context: PieceContext,
  generation: GenerationWriter,
): Promise<Part[]> {
  const { partBytes } = context;
  if (size <= partBytes) {
    // Not discarded: the journal has it until it is in the cache.
    await storeOnce({ digest, size, content: { file } }, context, generation);
    return [{ blob: digest, size, offset: 0, length: size }];
  }
  const parts: Part[] = [];
  for (let offset = 0; offset < size; offset += partBytes) {
    const writer = context.spool.writer();
    for await (const chunk of Bun.file(file)
      .slice(offset, Math.min(size, offset + partBytes))
      .stream()) {
      await writer.write(chunk);
    }
    const blob = await writer.finish();
    await storeBlob(blob, context, generation);
    parts.push({ blob: blob.digest, size: blob.size, offset: 0, length: blob.size });
  }
  return parts;
}

async function storeBlob(
  blob: BlobSource,
  context: PieceContext,
  generation: GenerationWriter,
): Promise<void> {
  try {
    await storeOnce(blob, context, generation);
  } finally {
    discardBlob(blob);
  }
}

async function storeOnce(
  blob: BlobSource,
  { store, signal }: PieceContext,
  generation: GenerationWriter,
): Promise<void> {
  await writeIfAbsent(store, blob, { signal });
  await generation.uploaded({ digest: blob.digest, size: blob.size });
}
