/**
 * The answer to a request for a listing, a build log or a realisation, from a source of ours. They are kept
 * compressed and go out as they were: Nix asks for no encoding by which a cache could save the client the work.
 */
import type { Attachment } from "../cache/attachment.ts";
import { messageOf } from "../errors.ts";
import { readPackedFile } from "../protocol/packed-file.ts";
import type { Exchange } from "./exchange.ts";
import type { MemoryBudget } from "./memory.ts";
import { TEXT } from "./respond.ts";
import { type Source, sourceOf } from "./source.ts";

export interface AttachedContext {
  readonly onError: (message: string) => void;
  readonly memory?: MemoryBudget | undefined;
  readonly exchange: Exchange;
}

const JSON_TYPE = { "content-type": "application/json" };

/** Files up to this many bytes are unpacked whole and sent with their length. */
const WHOLE_BYTES = 64 * 1024;

/** The listing of a store path. Undefined when no source has it. */
export function ownListing(
  storeHash: string,
  request: Request,
  sources: readonly Source[],
  context: AttachedContext,
): Promise<Response> | undefined {
  // That of the build whose narinfo is shown comes first.
  const shown = sourceOf(storeHash, sources)?.source;
  for (const { view, store } of shown === undefined ? sources : [shown, ...sources]) {
    const part = view.listing(storeHash);
    if (part !== undefined) return fileAnswer({ part }, JSON_TYPE, store, request, context);
  }
  return undefined;
}

/** A file beside the narinfos, by its path. Undefined when no source has it. */
export function ownAttached(
  path: string,
  request: Request,
  sources: readonly Source[],
  context: AttachedContext,
): Promise<Response> | undefined {
  const type = path.startsWith("log/") ? TEXT : JSON_TYPE;
  for (const { view, store } of sources) {
    const file = view.attached(path);
    if (file !== undefined) return fileAnswer(file, type, store, request, context);
  }
  return undefined;
}

async function fileAnswer(
  file: Attachment,
  headers: Record<string, string>,
  store: Source["store"],
  { method, signal }: Request,
  { onError, memory, exchange }: AttachedContext,
): Promise<Response> {
  exchange.source = "cache";
  if ("text" in file) return whole(Buffer.from(file.text), method, headers, exchange);
  const chunks = readPackedFile(file.part, store, { signal, memory });
  const first: Uint8Array[] = [];
  for (let size = 0; size <= WHOLE_BYTES; ) {
    const next = await chunks.next();
    if (next.done) return whole(Buffer.concat(first), method, headers, exchange);
    first.push(next.value);
    size += next.value.length;
  }
  if (method === "HEAD") {
    await chunks.return(undefined);
    // A stream, as null would say that the file is empty. Its length is not known before all is unpacked.
    return new Response(new Blob([]).stream(), { headers });
  }
  return new Response(exchange.stream(streamOf(first, chunks, { signal, onError })), { headers });
}

function whole(
  bytes: Uint8Array<ArrayBuffer>,
  method: string,
  headers: Record<string, string>,
  exchange: Exchange,
): Response {
  if (method === "HEAD") {
    return new Response(null, { headers: { ...headers, "content-length": String(bytes.length) } });
  }
  exchange.bytes = bytes.length;
  return new Response(bytes, { headers });
}

/** Holds back for a slow client, and errors, which breaks the transfer, when anything is wrong. */
function streamOf(
  first: Uint8Array[],
  chunks: AsyncGenerator<Uint8Array, void, undefined>,
  { signal, onError }: { readonly signal: AbortSignal; readonly onError: (message: string) => void },
): ReadableStream<Uint8Array> {
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const next = first.shift() ?? (await chunks.next()).value;
          if (next) controller.enqueue(next);
          else controller.close();
        } catch (error) {
          if (!signal.aborted) onError(messageOf(error));
          throw error;
        }
      },
      async cancel() {
        await chunks.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}
