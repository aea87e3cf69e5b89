/**
 * Sending a NAR. The last bytes go out only after all were found right, so that a client never sees a wrong NAR
 * end cleanly (rule 5).
 */
import { NixcacheError } from "../errors.ts";
import { type NarFileSource, readNarFile } from "../protocol/nar-file.ts";
import type { Source } from "./source.ts";

/** As of `readNarFile`. */
type ReadOptions = NonNullable<Parameters<typeof readNarFile>[2]>;

/** NARs up to this many bytes are read whole, checked, and sent with their length. */
export const BUFFERED_BYTES = 4 * 1024 * 1024;

/** All bodies that are sent whole, in bytes: who has taken how much of one is not to be known. */
const BUFFERED_TOGETHER_BYTES = 8 * 1024 * 1024;

/** Whether a NAR of `size` bytes is sent whole while `underWay` requests are not fully answered. */
export function isBuffered(size: number, underWay: number): boolean {
  return size <= Math.min(BUFFERED_BYTES, BUFFERED_TOGETHER_BYTES / Math.max(1, underWay));
}

/** How often a NAR that is read whole is fetched when its bytes are wrong: they may have been damaged on their way. */
const FETCHES = 2;

/**
 * The NAR file or a range of it, checked as far as it can be.
 * @throws when a part is absent, cannot be read, or is wrong
 */
export async function readNar(
  source: NarFileSource,
  store: Source["store"],
  options: ReadOptions = {},
): Promise<Uint8Array> {
  for (let fetches = 1; ; fetches++) {
    const chunks: Uint8Array[] = [];
    try {
      for await (const chunk of readNarFile(source, store, options)) chunks.push(chunk);
      return chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
    } catch (error) {
      const damaged = error instanceof NixcacheError && error.code === "corrupt";
      if (!damaged || fetches === FETCHES) throw error;
    }
  }
}

/**
 * The NAR file, or a range of it, as a stream that holds back for a slow client. It errors, which breaks the transfer,
 * when anything is wrong. Starts reading at once: resolves when the first bytes are there, rejects when there are none.
 * @param options.onBroken told why a transfer was broken off, when it was not the client who did
 */
export async function streamNar(
  source: NarFileSource,
  store: Source["store"],
  options: ReadOptions & { readonly onBroken: (error: unknown) => void },
): Promise<ReadableStream<Uint8Array>> {
  const { signal, onBroken } = options;
  const chunks = readNarFile(source, store, options);
  let next = await chunks.next();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        if (next.done) {
          controller.close();
          return;
        }
        controller.enqueue(next.value);
        try {
          next = await chunks.next();
        } catch (error) {
          if (!signal?.aborted) onBroken(error);
          throw error;
        }
        if (next.done) controller.close();
      },
      async cancel() {
        await chunks.return(undefined);
      },
    },
    { highWaterMark: 0 },
  );
}
