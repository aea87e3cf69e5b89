/** Index layers as blobs: compressing and storing them, fetching and checking them. */
import { type EntryLine, MAX_LINE_BYTES } from "../cache/entry.ts";
import {
  BrokenLine,
  formatLayer,
  type LayerHeader,
  LayerParser,
  LineSplitter,
} from "../cache/index-layer.ts";
import type { BlobReference } from "../cache/manifests.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import { type Spool, streamBlob } from "../oci/spool.ts";
import type { BlobSource, CallOptions, Store } from "../oci/store.ts";
import { compressFrame } from "../zstd.ts";
import { unpackFrames } from "../zstd-frames.ts";
import { fetchBlob } from "./fetch-blob.ts";

/** Index text repeats itself, so it is worth a higher level than NARs are. */
const LEVEL = 9;

/** Text that one zstd frame holds, in bytes. */
const FRAME_BYTES = 4 * 1024 * 1024;

/**
 * No index compresses better than this: even lines that differ in a hash alone stay under it. It bounds what a
 * hostile layer can make us write.
 */
const MAX_RATIO = 256;

/** Makes the blob of an index layer. */
export function makeLayer(
  spool: Spool,
  header: LayerHeader,
  lines: Iterable<Pick<EntryLine, "narinfo" | "rest">>,
): Promise<BlobSource> {
  return spool.make(async (writer) => {
    let text: string[] = [];
    let length = 0;
    const flush = async () => {
      await writer.write(await compressFrame(Buffer.from(text.join("")), LEVEL));
      text = [];
      length = 0;
    };
    for (const line of formatLayer(header, lines)) {
      text.push(line, "\n");
      length += line.length + 1;
      if (length >= FRAME_BYTES) await flush();
    }
    if (length > 0) await flush();
  });
}

/** As `fetchBlob`, of an index layer. */
export function fetchLayer(
  store: Store,
  spool: Spool,
  layer: BlobReference,
  options: CallOptions,
): Promise<BlobSource | undefined> {
  return fetchBlob(store, spool, layer, "index layer", options);
}

/**
 * Reads a layer's lines, calling `entry` for each, and returns its header.
 * @param broken called for each line that is no entry. Default: they are passed over.
 * @throws `corrupt`, with the line, for anything that is not an index layer.
 */
export async function readLayer(
  blob: BlobSource,
  where: string,
  entry: (line: EntryLine) => void,
  broken: (error: BrokenLine) => void = () => {},
): Promise<LayerHeader> {
  const name = layerName(blob, where);
  const splitter = new LineSplitter(name);
  const parser = new LayerParser(name);
  for await (const chunk of unpackLayer(streamBlob(blob), blob.size, name)) {
    for (const text of splitter.push(chunk)) {
      const line = unlessBroken(() => parser.push(text), broken);
      if (line !== undefined) entry(line);
    }
  }
  splitter.end();
  return parser.header();
}

function unlessBroken<T>(read: () => T, broken: (error: BrokenLine) => void): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof BrokenLine)) throw error;
    broken(error);
    return undefined;
  }
}

/** For messages. */
export function layerName(blob: BlobReference, where: string): string {
  return `index layer ${blob.digest} of ${where}`;
}

/**
 * The text of a layer, in chunks.
 * @param compressed its blob, `size` bytes, in chunks that do not change afterwards
 * @param name for messages
 * @throws `corrupt` when it is no zstd, or unpacks to more than any layer does; what `compressed` throws
 */
export async function* unpackLayer(
  compressed: AsyncIterable<Uint8Array>,
  size: number,
  name: string,
): AsyncGenerator<Uint8Array> {
  const bound = size * MAX_RATIO + MAX_LINE_BYTES;
  let total = 0;
  try {
    for await (const chunk of unpackFrames(compressed)) {
      total += chunk.length;
      if (total > bound) {
        throw new NixcacheError("corrupt", `${name}: unpacks to over ${MAX_RATIO} times its ${size} bytes`);
      }
      yield chunk;
    }
  } catch (error) {
    if (error instanceof NixcacheError) throw error;
    throw new NixcacheError("corrupt", `${name}: not valid zstd: ${messageOf(error)}`, { cause: error });
  }
}
