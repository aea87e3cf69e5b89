/** Bodies of uploads: their length, their encoding, and their way to disk with bounded memory. */
import { type FileHandle, open } from "node:fs/promises";
import { messageOf, preview } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Digest } from "../oci/digest.ts";
import { compressFrame, DEFAULT_COMPRESSION_LEVEL } from "../zstd.ts";
import { Refusal } from "./refusal.ts";

/** Content codings that Nix may give to a narinfo, a listing or a log (2.32 on), by the name of their stream. */
const ENCODINGS: Readonly<Record<string, Bun.CompressionFormat>> = {
  gzip: "gzip",
  "x-gzip": "gzip",
  br: "brotli",
  zstd: "zstd",
};

/** Content in one frame of a file that is kept compressed, in bytes. */
const FRAME_BYTES = 1024 * 1024;

/** From one byte to the next, in milliseconds: a client that has gone without a word must not keep its room. */
const STALL_MS = 5 * 60_000;

export type Upload = Pick<Request, "headers" | "body">;

/** The request, with a body that ends early when it stalls. */
export function uploadOf({ headers, body }: Upload, host: Pick<Host, "sleep">): Upload {
  return { headers, body: body && streamOf(unlessStalled(body, host)) };
}

/** A file on disk whose bytes are there to stay; it has no name yet that anybody looks for. */
export interface ReceivedFile {
  readonly file: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
}

/**
 * Bytes of the body. Nix always says, and without it a body that broke off could look complete.
 * @throws Refusal (411, 413)
 */
export function lengthOf(upload: Upload, most: number): number {
  const text = upload.headers.get("content-length");
  if (text === null || !/^\d{1,15}$/.test(text))
    throw new Refusal(411, "an upload must state its Content-Length");
  const length = Number(text);
  if (length <= most) return length;
  throw new Refusal(413, `got ${length} bytes, expected at most ${most}`);
}

/** Writes the body as it is into a new file. @throws Refusal; no file is left then. */
export async function receiveFile(upload: Upload, file: string, most: number): Promise<ReceivedFile> {
  if (encodingOf(upload) !== undefined)
    throw new Refusal(415, "a NAR must be sent without a Content-Encoding");
  return writeFile(file, rawBody(upload, most));
}

/** Writes the content of the body into a new file as zstd. @throws Refusal; no file is left then. */
export async function receiveCompressed(upload: Upload, file: string, most: number): Promise<ReceivedFile> {
  return writeFile(file, frames(content(upload, most)));
}

/** The content of the body as text. @throws Refusal */
export async function receiveText(upload: Upload, most: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of content(upload, most)) chunks.push(chunk);
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.concat(chunks));
  } catch {
    throw new Refusal(400, "the body is not UTF-8");
  }
}

function encodingOf(upload: Upload): string | undefined {
  const encoding = upload.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  return encoding === "" || encoding === "identity" ? undefined : encoding;
}

/** The bytes as sent, all of them or an error. */
async function* rawBody(upload: Upload, most: number): AsyncGenerator<Uint8Array, void, undefined> {
  const length = lengthOf(upload, most);
  let size = 0;
  try {
    for await (const chunk of upload.body ?? []) {
      size += chunk.length;
      yield chunk;
    }
  } catch (error) {
    // What the reader of these chunks throws does not come by here.
    throw new Refusal(400, `the upload broke off after ${size} of ${length} bytes: ${messageOf(error)}`);
  }
  if (size !== length) throw new Refusal(400, `got ${size} bytes, expected ${length} as Content-Length says`);
}

/** The body without its content coding, of at most `most` bytes. */
async function* content(upload: Upload, most: number): AsyncGenerator<Uint8Array, void, undefined> {
  const encoding = encodingOf(upload);
  if (encoding === undefined) return yield* rawBody(upload, most);
  const format = Object.hasOwn(ENCODINGS, encoding) ? ENCODINGS[encoding] : undefined;
  if (format === undefined) {
    throw new Refusal(415, `got the Content-Encoding ${preview(encoding)}, expected gzip, br, zstd or none`);
  }
  let size = 0;
  try {
    for await (const chunk of unpack(rawBody(upload, most), format)) {
      size += chunk.length;
      if (size > most) throw new Refusal(413, `unpacks to more than ${most} bytes`);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(400, `the body cannot be unpacked as ${encoding}: ${messageOf(error)}`);
  }
}

/** Holds back for slow readers, and ends with an error when the packed bytes are not whole. */
export function unpack(
  packed: AsyncGenerator<Uint8Array, void, undefined> | ReadableStream<Uint8Array>,
  format: Bun.CompressionFormat,
): ReadableStream<Uint8Array> {
  const stream = packed instanceof ReadableStream ? packed : streamOf(packed);
  return stream.pipeThrough(new DecompressionStream(format) as ReadableWritablePair<Uint8Array, Uint8Array>);
}

async function* unlessStalled(
  body: ReadableStream<Uint8Array>,
  host: Pick<Host, "sleep">,
): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = body.getReader();
  try {
    for (;;) {
      const moved = new AbortController();
      host.sleep(STALL_MS, moved.signal).then(
        () => reader.cancel(),
        () => {},
      );
      const next = await reader.read().finally(() => moved.abort());
      if (next.done) return;
      yield next.value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function streamOf(chunks: AsyncGenerator<Uint8Array, void, undefined>): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const next = await chunks.next();
        if (next.done) controller.close();
        else controller.enqueue(next.value);
      },
      async cancel() {
        await chunks.return();
      },
    },
    { highWaterMark: 0 },
  );
}

/** zstd frames of a MiB of content each: together they are a zstd file. */
async function* frames(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array, void, undefined> {
  let held: Uint8Array[] = [];
  let size = 0;
  const frame = () => compressFrame(Buffer.concat(held), DEFAULT_COMPRESSION_LEVEL);
  for await (const chunk of chunks) {
    held.push(chunk);
    size += chunk.length;
    if (size < FRAME_BYTES) continue;
    yield await frame();
    [held, size] = [[], 0];
  }
  if (size > 0) yield await frame();
}

/** Writes a new file that only we can read, and waits until the disk has it. */
async function writeFile(file: string, chunks: AsyncIterable<Uint8Array>): Promise<ReceivedFile> {
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  const handle = await open(file, "wx", 0o600);
  try {
    for await (const chunk of chunks) {
      hasher.update(chunk);
      size += chunk.length;
      await writeAll(handle, chunk);
    }
    await handle.sync();
  } catch (error) {
    await Bun.file(file)
      .delete()
      .catch(() => {});
    throw error;
  } finally {
    await handle.close();
  }
  return { file, digest: `sha256:${hasher.digest("hex")}`, size };
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done);
    done += bytesWritten;
  }
}
