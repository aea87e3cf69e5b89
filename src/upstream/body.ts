/** Bodies of upstreams' answers: texts of a bounded size, and streams that never wait for ever. */
import { messageOf, NixcacheError, preview } from "../errors.ts";
import { UpstreamFailure } from "./failure.ts";

/**
 * Some caches keep their narinfos compressed. Unpacked here and not by fetch, which unpacks zstd without holding
 * back: 19 KB made 400 MiB.
 */
const ENCODINGS: Readonly<Record<string, string>> = {
  gzip: "gzip",
  "x-gzip": "gzip",
  deflate: "deflate",
  br: "brotli",
  zstd: "zstd",
};

/** Undefined when the body is as it is. */
export function encodingOf(response: Response): string | undefined {
  const encoding = response.headers.get("content-encoding")?.trim().toLowerCase() ?? "";
  return encoding === "" || encoding === "identity" ? undefined : encoding;
}

/**
 * The body, unpacked, of at most `maxBytes` whatever its header says.
 * @throws `corrupt` for too much of it and for an unknown encoding; what the network or the decoder throws
 */
export async function readText(response: Response, maxBytes: number): Promise<string> {
  const encoding = encodingOf(response);
  const format =
    encoding === undefined ? undefined : Object.hasOwn(ENCODINGS, encoding) ? ENCODINGS[encoding] : undefined;
  if (encoding !== undefined && format === undefined) {
    await response.body?.cancel();
    throw new NixcacheError("corrupt", `unknown content encoding ${preview(encoding)}`);
  }
  let body: ReadableStream<Uint8Array> | null = response.body;
  if (body !== null && format !== undefined) {
    const unpack = new DecompressionStream(format as Bun.CompressionFormat);
    body = body.pipeThrough(unpack as ReadableWritablePair<Uint8Array, Uint8Array>);
  }
  const chunks: Uint8Array[] = [];
  let size = 0;
  // Leaving the loop cancels the body.
  for await (const chunk of body ?? []) {
    size += chunk.length;
    if (size > maxBytes) throw new NixcacheError("corrupt", `more than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

export interface WatchOptions {
  /** What is read, for messages. */
  readonly what: string;
  /** How long to wait for the next bytes, in milliseconds. What the reader takes is not counted. */
  readonly stallMs: number;
  /** Of the answer; a body that ends with fewer bytes is broken. */
  readonly length: number | undefined;
  readonly signal: AbortSignal | undefined;
  /** Told when the upstream breaks it off or stalls, not when the reader turns away. */
  readonly onBroken: ((failure: UpstreamFailure) => void) | undefined;
}

/** The same bytes as they come; errors, which breaks the transfer, when they do not come or break off. */
export function watched(body: ReadableStream<Uint8Array>, options: WatchOptions): ReadableStream<Uint8Array> {
  const { what, stallMs, length, signal, onBroken } = options;
  const reader = body.getReader();
  let received = 0;

  async function next(): Promise<Uint8Array | undefined> {
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(new UpstreamFailure(`${what}: no byte in ${stallMs} ms`, { timedOut: true })),
      stallMs,
    );
    try {
      const { done, value } = await Promise.race([reader.read(), late.promise]);
      if (!done) {
        received += value.length;
        return value;
      }
      if (length === undefined || received >= length) return undefined;
      throw new UpstreamFailure(`${what}: got ${received} bytes, expected ${length}`);
    } catch (cause) {
      if (cause instanceof UpstreamFailure) throw cause;
      throw new UpstreamFailure(`${what}: broke off after ${received} bytes: ${messageOf(cause)}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const chunk = await next();
          if (chunk === undefined) controller.close();
          else controller.enqueue(chunk);
        } catch (error) {
          if (!signal?.aborted) onBroken?.(error as UpstreamFailure);
          reader.cancel(error).catch(() => {});
          throw error;
        }
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}
