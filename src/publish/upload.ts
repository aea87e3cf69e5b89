/**
 * Making the blobs of a unit and storing them.
 */
import type { Part } from "../cache/part.ts";
import { encodeBase32 } from "../nar/base32.ts";
import type { PathInfo } from "../nix/store.ts";
import { type BlobWriter, discardBlob, type Spool } from "../oci/spool.ts";
import type { BlobSource, Store } from "../oci/store.ts";
import type { GenerationWriter } from "../protocol/generation.ts";
import { writeIfAbsent } from "../protocol/write-if-absent.ts";
import {
  type BesidePieces,
  besideParts,
  type LogsByNar,
  type PartsBeside,
  type Piece,
  partOf,
  readBeside,
  sizeOf,
  writeBeside,
} from "./beside.ts";
import { NarListing } from "./listing.ts";
import { type Compressor, type Dump, FRAME_BYTES, PathError, readFrames } from "./nar-file.ts";
import type { Unit } from "./plan.ts";

/** Where the compressed NAR of a path is, and what stands behind it. */
export interface NarFile extends PartsBeside {
  /** `sha256:<base32>` of all parts in order. */
  readonly fileHash: string;
  /** Bytes. */
  readonly fileSize: number;
  readonly parts: readonly Part[];
}

/** What became of the NARs of one unit, by NAR hash. */
export interface UnitResult {
  readonly files: ReadonlyMap<string, NarFile>;
  /** Why a NAR could not be read. */
  readonly failed: ReadonlyMap<string, PathError>;
}

export interface UploadContext {
  readonly store: Store;
  readonly spool: Spool;
  readonly generation: GenerationWriter;
  readonly compressor: Compressor;
  readonly dump: Dump;
  readonly logs: LogsByNar;
  /** Compressed bytes after which a large NAR goes on in another blob. */
  readonly partBytes: number;
  readonly signal?: AbortSignal | undefined;
  readonly progress: UploadProgress;
}

export interface UploadProgress {
  /** Bytes of NARs, before compression, that are now compressed. */
  compressed(bytes: number): void;
  /** A blob was sent, or found in the store already. */
  stored(blob: BlobSource, sent: boolean): void;
}

/** @throws when the store fails. What is wrong with a path itself is in the result. */
export function uploadUnit(unit: Unit, context: UploadContext): Promise<UnitResult> {
  return unit.kind === "pack" ? uploadPack(unit.paths, context) : uploadLarge(unit.path, context);
}

interface Packed {
  readonly narHash: string;
  readonly fileHash: string;
  readonly nar: Piece;
  readonly beside: BesidePieces;
}

async function uploadPack(paths: readonly PathInfo[], context: UploadContext): Promise<UnitResult> {
  // As many at once as there are processors: the first is on its way while the next is made.
  const { blob, packed, failed } = await context.compressor.inTurn(() => makePack(paths, context));
  if (packed.length > 0) await storeBlob(blob, context);
  else discardBlob(blob);
  const files = new Map<string, NarFile>();
  for (const { narHash, fileHash, nar, beside } of packed) {
    const parts = [partOf(blob, nar)];
    files.set(narHash, { fileHash, fileSize: nar.length, parts, ...besideParts(blob, beside) });
  }
  return { files, failed };
}

async function makePack(
  paths: readonly PathInfo[],
  context: UploadContext,
): Promise<{ blob: BlobSource; packed: Packed[]; failed: Map<string, PathError> }> {
  const failed = new Map<string, PathError>();
  const packed: Packed[] = [];
  const blob = await context.spool.make(async (writer) => {
    for (const path of paths) {
      try {
        packed.push(await pack(path, writer, context));
      } catch (error) {
        failed.set(path.narHash, ofPath(error));
      }
      context.progress.compressed(path.narSize);
    }
  });
  return { blob, packed, failed };
}

async function pack(path: PathInfo, writer: BlobWriter, context: UploadContext): Promise<Packed> {
  const listing = new NarListing();
  const bytes = await compressSmall(path, listing, context);
  const beside = await readBeside(path, listing, context);
  const nar = { offset: writer.size, length: bytes.length };
  await writer.write(bytes);
  return {
    narHash: path.narHash,
    fileHash: fileHash(new Bun.CryptoHasher("sha256").update(bytes)),
    nar,
    beside: await writeBeside(beside, writer),
  };
}

async function compressSmall(
  path: PathInfo,
  listing: NarListing,
  context: UploadContext,
): Promise<Uint8Array> {
  const frames: Uint8Array[] = [];
  const { compressor, dump } = context;
  const buffer = (size: number) => compressor.buffer(size);
  for await (const frame of readFrames(path, dump, FRAME_BYTES, buffer, listing)) {
    frames.push(await compressor.frame(frame));
  }
  return frames.length === 1 && frames[0] ? frames[0] : Buffer.concat(frames);
}

async function uploadLarge(path: PathInfo, context: UploadContext): Promise<UnitResult> {
  /** Of the NAR alone, from its second blob on: the first blob begins with it, and is hashed anyway. */
  let file: Bun.CryptoHasher | undefined;
  const parts: Part[] = [];
  const uploads: Promise<void>[] = [];
  const listing = new NarListing();
  let writer = context.spool.writer();
  /** Bytes of the NAR in the blob that is being written. */
  let narBytes = 0;
  const closeBlob = async (): Promise<BlobSource> => {
    const blob = await writer.finish();
    writer = context.spool.writer();
    if (narBytes > 0) parts.push(partOf(blob, { offset: 0, length: narBytes }));
    narBytes = 0;
    // One blob uploads while the next is compressed; a third waits, for the disk's sake.
    const turn = uploads.at(-2) ?? Promise.resolve();
    const upload = turn.then(
      () => storeBlob(blob, context),
      (error) => {
        discardBlob(blob);
        throw error;
      },
    );
    upload.catch(() => {});
    uploads.push(upload);
    await turn;
    return blob;
  };
  const makeRoom = async (bytes: number) => {
    if (writer.size === 0 || writer.size + bytes <= context.partBytes) return;
    file ??= writer.hasher();
    await closeBlob();
  };
  let beside: PartsBeside;
  try {
    for await (const { raw, bytes } of compressedFrames(path, listing, context)) {
      await makeRoom(bytes.length);
      file?.update(bytes);
      await writer.write(bytes);
      narBytes += bytes.length;
      context.progress.compressed(raw);
    }
    file ??= writer.hasher();
    const files = await readBeside(path, listing, context);
    await makeRoom(sizeOf(files));
    const pieces = await writeBeside(files, writer);
    beside = besideParts(await closeBlob(), pieces);
    await Promise.all(uploads);
  } catch (error) {
    await writer.abort();
    await Promise.allSettled(uploads);
    return { files: new Map(), failed: new Map([[path.narHash, ofPath(error)]]) };
  }
  const fileSize = parts.reduce((sum, part) => sum + part.length, 0);
  return {
    files: new Map([[path.narHash, { fileHash: fileHash(file), fileSize, parts, ...beside }]]),
    failed: new Map(),
  };
}

/** Frames compressed side by side, in order. */
async function* compressedFrames(
  path: PathInfo,
  listing: NarListing,
  { compressor, dump, partBytes, signal }: UploadContext,
): AsyncGenerator<{ raw: number; bytes: Uint8Array }, void, undefined> {
  const pending: { raw: number; bytes: Promise<Uint8Array> }[] = [];
  const take = async () => {
    const first = pending.shift();
    return first && { raw: first.raw, bytes: await first.bytes };
  };
  try {
    const frameBytes = Math.min(FRAME_BYTES, partBytes);
    const buffer = (size: number) => compressor.buffer(size);
    for await (const frame of readFrames(path, dump, frameBytes, buffer, listing)) {
      signal?.throwIfAborted();
      const bytes = compressor.frame(frame);
      bytes.catch(() => {});
      pending.push({ raw: frame.length, bytes });
      if (pending.length <= compressor.threads + 1) continue;
      const ready = await take();
      if (ready) yield ready;
    }
    for (let ready = await take(); ready; ready = await take()) yield ready;
  } finally {
    await Promise.allSettled(pending.map(({ bytes }) => bytes));
  }
}

async function storeBlob(blob: BlobSource, context: UploadContext): Promise<void> {
  const { store, generation, signal, progress } = context;
  try {
    progress.stored(blob, await writeIfAbsent(store, blob, { signal }));
  } finally {
    discardBlob(blob);
  }
  await generation.uploaded({ digest: blob.digest, size: blob.size });
}

/** An error that concerns one path alone; the store's own go on upwards. */
function ofPath(error: unknown): PathError {
  if (error instanceof PathError) return error;
  throw error;
}

function fileHash(hasher: Bun.CryptoHasher): string {
  return `sha256:${encodeBase32(hasher.digest() as Uint8Array)}`;
}
