/**
 * Making the blobs of a unit and storing them.
 */
import type { Part } from "../cache/part.ts";
import { encodeBase32 } from "../nar/base32.ts";
import type { PathInfo } from "../nix/store.ts";
import { discardBlob, type Spool } from "../oci/spool.ts";
import type { BlobSource, Store } from "../oci/store.ts";
import type { GenerationWriter } from "../protocol/generation.ts";
import { type Compressor, type Dump, FRAME_BYTES, PathError, readFrames } from "./nar-file.ts";
import type { Unit } from "./plan.ts";

/** Where the compressed NAR of a path is. */
export interface NarFile {
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

async function uploadPack(paths: readonly PathInfo[], context: UploadContext): Promise<UnitResult> {
  const failed = new Map<string, PathError>();
  const slices: { narHash: string; offset: number; bytes: Uint8Array }[] = [];
  const writer = context.spool.writer();
  for (const path of paths) {
    try {
      const bytes = await compressSmall(path, context);
      slices.push({ narHash: path.narHash, offset: writer.size, bytes });
      await writer.write(bytes);
    } catch (error) {
      failed.set(path.narHash, ofPath(error));
    }
    context.progress.compressed(path.narSize);
  }
  const files = new Map<string, NarFile>();
  const blob = await writer.finish();
  if (slices.length > 0) await storeBlob(blob, context);
  for (const { narHash, offset, bytes } of slices) {
    const part = { blob: blob.digest, size: blob.size, offset, length: bytes.length };
    files.set(narHash, {
      fileHash: fileHash(new Bun.CryptoHasher("sha256").update(bytes)),
      fileSize: bytes.length,
      parts: [part],
    });
  }
  return { files, failed };
}

async function compressSmall(path: PathInfo, context: UploadContext): Promise<Uint8Array> {
  const frames: Uint8Array[] = [];
  const { compressor, dump } = context;
  for await (const frame of readFrames(path, dump, FRAME_BYTES, (size) => compressor.buffer(size))) {
    frames.push(await compressor.frame(frame));
  }
  return frames.length === 1 && frames[0] ? frames[0] : Buffer.concat(frames);
}

async function uploadLarge(path: PathInfo, context: UploadContext): Promise<UnitResult> {
  const file = new Bun.CryptoHasher("sha256");
  const parts: Part[] = [];
  const uploads: Promise<void>[] = [];
  let writer = context.spool.writer();
  const closePart = async () => {
    const blob = await writer.finish();
    writer = context.spool.writer();
    parts.push({ blob: blob.digest, size: blob.size, offset: 0, length: blob.size });
    // One part uploads while the next is compressed; a third waits, for the disk's sake.
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
  };
  try {
    for await (const { raw, bytes } of compressedFrames(path, context)) {
      if (writer.size > 0 && writer.size + bytes.length > context.partBytes) await closePart();
      file.update(bytes);
      await writer.write(bytes);
      context.progress.compressed(raw);
    }
    await closePart();
    await Promise.all(uploads);
  } catch (error) {
    await writer.abort();
    await Promise.allSettled(uploads);
    return { files: new Map(), failed: new Map([[path.narHash, ofPath(error)]]) };
  }
  const fileSize = parts.reduce((sum, part) => sum + part.length, 0);
  return {
    files: new Map([[path.narHash, { fileHash: fileHash(file), fileSize, parts }]]),
    failed: new Map(),
  };
}

/** Frames compressed side by side, in order. */
async function* compressedFrames(
  path: PathInfo,
  { compressor, dump, partBytes }: UploadContext,
): AsyncGenerator<{ raw: number; bytes: Uint8Array }, void, undefined> {
  const pending: { raw: number; bytes: Promise<Uint8Array> }[] = [];
  const take = async () => {
    const first = pending.shift();
    return first && { raw: first.raw, bytes: await first.bytes };
  };
  try {
    const frameBytes = Math.min(FRAME_BYTES, partBytes);
    for await (const frame of readFrames(path, dump, frameBytes, (size) => compressor.buffer(size))) {
      const bytes = compressor.frame(frame);
      bytes.catch(() => {});
      pending.push({ raw: frame.length, bytes });
      if (pending.length <= compressor.threads) continue;
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
    const there = (await store.statBlob(blob.digest, { signal })) !== undefined;
    if (!there) await store.writeBlob(blob, { signal });
    progress.stored(blob, !there);
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
