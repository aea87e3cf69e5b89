/**
 * Files of the journal on their way into blobs: small ones share packs, as a blob each would cost two write requests
 * each; a large one is a blob, or as many as its size needs. The bytes stay as they were sent.
 */

import type { Part } from "../cache/part.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError, systemCode } from "../errors.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { fileError, fileSize } from "../oci/layout-files.ts";
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

export interface StoredPieces {
  /** By digest. */
  readonly places: ReadonlyMap<Digest, readonly Part[]>;
  /** Those whose file is gone, or has other bytes than came: a fault of the disk. */
  readonly spoilt: ReadonlySet<Digest>;
}

/** Stores each piece; what is spoilt keeps no other one back. @throws when the store fails */
export async function storePieces(
  pieces: readonly Piece[],
  context: PieceContext,
  generation: GenerationWriter,
): Promise<StoredPieces> {
  const places = new Map<Digest, readonly Part[]>();
  const spoilt = new Set<Digest>();
  await mapConcurrently(planBlobs(pieces), AT_ONCE, async (group) => {
    const [first] = group;
    if (first === undefined) return;
    const stored =
      group.length > 1
        ? await storePack(group, context, generation)
        : [[first, await storeAlone(first, context, generation)] as const];
    for (const [{ digest }, parts] of stored) {
      if (parts === undefined) spoilt.add(digest);
      else places.set(digest, parts);
    }
  });
  return { places, spoilt };
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
): Promise<[Piece, Part[] | undefined][]> {
  const offsets = new Map<Piece, number>();
  const blob = await context.spool.make(async (writer) => {
    for (const piece of pieces) {
      const bytes = await bytesOf(piece);
      if (bytes === undefined) continue;
      offsets.set(piece, writer.size);
      await writer.write(bytes);
    }
  });
  if (offsets.size > 0) await storeBlob(blob, context, generation);
  return pieces.map((piece) => {
    const offset = offsets.get(piece);
    const place = { blob: blob.digest, size: blob.size, length: piece.size };
    return [piece, offset === undefined ? undefined : [{ ...place, offset }]];
  });
}

/** Undefined for a piece that is spoilt. */
async function bytesOf({ digest, file }: Piece): Promise<Uint8Array | undefined> {
  try {
    const bytes = await Bun.file(file).bytes();
    return digestOf(bytes) === digest ? bytes : undefined;
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    throw fileError("read", file, error);
  }
}

/** Undefined for a piece that is spoilt. */
async function storeAlone(
  piece: Piece,
  context: PieceContext,
  generation: GenerationWriter,
): Promise<Part[] | undefined> {
  try {
    return await (piece.size <= context.partBytes ? storeWhole : storeCut)(piece, context, generation);
  } catch (error) {
    const isOurs = error instanceof NixcacheError && ["corrupt", "filesystem"].includes(error.code);
    // Or else it is the store's, or the disk's of the spool.
    if (isOurs && (await isSpoilt(piece))) return undefined;
    throw error;
  }
}

async function storeWhole(
  { digest, size, file }: Piece,
  context: PieceContext,
  generation: GenerationWriter,
): Promise<Part[]> {
  // The journal keeps it until it is in the cache; and hashed on its way, since it may have lain there for long.
  await storeOnce({ digest, size, content: { file, foreign: true } }, context, generation);
  return [{ blob: digest, size, offset: 0, length: size }];
}

/** @throws `corrupt` when its bytes have changed; blobs of them are then in the store, which nothing names */
async function storeCut(
  { digest, size, file }: Piece,
  context: PieceContext,
  generation: GenerationWriter,
): Promise<Part[]> {
  const { partBytes, spool } = context;
  const hasher = new Bun.CryptoHasher("sha256");
  const parts: Part[] = [];
  for (let offset = 0; offset < size; offset += partBytes) {
    const blob = await spool.make(async (writer) => {
      for await (const chunk of readPiece(file, offset, Math.min(size, offset + partBytes))) {
        hasher.update(chunk);
        await writer.write(chunk);
      }
    });
    await storeBlob(blob, context, generation);
    parts.push({ blob: blob.digest, size: blob.size, offset: 0, length: blob.size });
  }
  const found = hasher.digest("hex");
  if (`sha256:${found}` === digest) return parts;
  throw new NixcacheError("corrupt", `${file}: its bytes have the SHA-256 ${found}, expected ${digest}`);
}

async function isSpoilt({ digest, size, file }: Piece): Promise<boolean> {
  if ((await fileSize(file)) !== size) return true;
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of readPiece(file, 0, size)) hasher.update(chunk);
  return `sha256:${hasher.digest("hex")}` !== digest;
}

async function* readPiece(file: string, from: number, to: number): AsyncGenerator<Uint8Array> {
  try {
    yield* Bun.file(file).slice(from, to).stream();
  } catch (error) {
    throw fileError("read", file, error);
  }
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
