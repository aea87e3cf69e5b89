/**
 * A range of one blob, over several requests at once and in order.
 *
 * Storage hosts cap each connection, so that several bring a multiple. A window is what one request asks for; the
 * windows ahead of the one that is being handed out wait in memory, which is taken out of a budget that all readers
 * share. A reader that takes nothing has nothing asked ahead for it.
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { onAbort } from "../oci/network.ts";
import type { ByteRange, Store } from "../oci/store.ts";

/** All that reading needs of a store. */
export type BlobReader = Pick<Store, "name" | "readBlob" | "ignoresRange">;

/** A blob that ranges are read of. */
export interface RangedBlob {
  readonly digest: Digest;
  /** Bytes of the whole. */
  readonly size: number;
  /** Whether it holds many small files, of which the range is one. */
  readonly isPack?: boolean;
}

/** The memory that all readers share, in bytes. What was taken is given back once it has been handed on. */
export interface ReadMemory {
  /** At most `wanted`, and always some: for bytes that somebody waits for. */
  take(wanted: number): number;
  /** At most `wanted`, or 0 when it is wanted more elsewhere: for bytes ahead of those. */
  takeAhead(wanted: number): number;
  giveBack(taken: number): void;
  /** So many bytes were handed on, and are garbage once they are sent. */
  handedOn(bytes: number): void;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Default: no bound; the range is then one request, which is held back for a slow reader. */
  readonly memory?: ReadMemory | undefined;
  /** Requests at once, where there is `memory`. Default: 1. */
  readonly connections?: number | undefined;
  /** Milliseconds, to find connections that need no others beside them. Default: there are none such. */
  readonly clock?: (() => number) | undefined;
}

/** The least that a request asks for, except at the end, in bytes. Memory that is short makes it less. */
const LEAST_WINDOW_BYTES = 1024 * 1024;

/** One connection that brings so much needs none beside it: checking and sending takes as long as fetching. */
const FAST_BYTES_PER_MS = 256 * 1024;

/** What one request asks for, at most, of a connection that is fast. It may be slow from some moment on. */
const MOST_STREAMED_BYTES = 64 * 1024 * 1024;

interface Window {
  /** What has come and was not handed out yet. */
  readonly chunks: Uint8Array[];
  state: "open" | "complete" | { readonly error: unknown };
  /** Bytes of the memory that are its own until it is over; 0 where each byte is given back as it is handed out. */
  readonly held: number;
  /** Bytes in `chunks`. */
  waiting: number;
  /** Called when some of `chunks` were handed out. */
  taken: () => void;
}

/**
 * The bytes of `range` in chunks, none of them empty. They are not checked: a range has no digest.
 * @param blob its size is stated by whoever names it
 * @throws `corrupt` when the blob is absent or shorter than the range; what the store throws
 */
export async function* readBlobRange(
  store: BlobReader,
  blob: RangedBlob,
  range: ByteRange,
  { signal, memory, connections = 1, clock }: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  if (memory === undefined) {
    yield* readWindow(store, blob, range, signal);
    return;
  }
  const controller = new AbortController();
  const stopListening = onAbort([signal], ({ reason }) => controller.abort(reason));
  const windows: Window[] = [];
  let open = 0;
  /** Bytes of the range that were asked for, and that were handed out. */
  let asked = 0;
  let handedOut = 0;
  /** Bytes of the memory that were not given back yet. */
  let taken = 0;
  const giveBack = (bytes: number) => {
    taken -= bytes;
    memory.giveBack(bytes);
  };
  /** Windows that were handed out since the reader last had to wait. */
  let sinceWait = 0;
  let moved = Promise.withResolvers<void>();

  /** Bytes that one request may ask for because the last one was so fast; 0 when it was not. */
  let streamed = 0;

  const fill = async (window: Window, part: ByteRange): Promise<void> => {
    open++;
    try {
      let first: number | undefined;
      let heldBack = 0;
      for await (const chunk of readWindow(store, blob, part, controller.signal)) {
        controller.signal.throwIfAborted();
        first ??= clock?.();
        window.chunks.push(chunk);
        window.waiting += chunk.length;
        moved.resolve();
        if (window.held === 0 || window.waiting < window.held) continue;
        const since = clock?.() ?? 0;
        await new Promise<void>((resolve) => {
          window.taken = resolve;
        });
        heldBack += (clock?.() ?? 0) - since;
      }
      const ms = (clock?.() ?? 0) - (first ?? 0) - heldBack;
      const isFast = first !== undefined && part.length > ms * FAST_BYTES_PER_MS;
      streamed = isFast ? Math.min(MOST_STREAMED_BYTES, 2 * Math.max(part.length, LEAST_WINDOW_BYTES)) : 0;
      window.state = "complete";
    } catch (error) {
      window.state = { error };
    }
    open--;
    moved.resolve();
  };

  /** What the next request asks for. Windows grow with what the reader takes, and the last ones end together. */
  const nextWindow = (): number => {
    const left = range.length - asked;
    const share = Math.ceil(Math.min(handedOut, left) / connections);
    const wanted = Math.min(left, Math.max(share, LEAST_WINDOW_BYTES));
    if (windows.length === 0) return memory.take(wanted);
    // A reader that never waits is slower than one connection: one window ahead is all that it needs.
    const most = sinceWait > connections ? 2 : 2 * connections;
    if (open >= connections || windows.length >= most) return 0;
    // A reader may have stopped taking, which shows late: no more waits for it than it has shown to take.
    if (asked - handedOut + wanted > 2 * handedOut) return 0;
    return memory.takeAhead(wanted);
  };

  const ask = (): void => {
    while (asked < range.length) {
      // Each request would bring the blob from its first byte on.
      const atOnce = store.ignoresRange?.() ? range.length - asked : streamed;
      // One request, held back for a slow reader, in the place of many.
      if (atOnce > 0 && windows.length > 0) return;
      let length = nextWindow();
      if (length === 0) return;
      taken += length;
      // Where memory is short the budget gives less, and a window must do.
      const isEnough = length >= LEAST_WINDOW_BYTES || store.ignoresRange?.();
      const held = atOnce > length && isEnough ? Math.min(length, LEAST_WINDOW_BYTES) : 0;
      if (held > 0) {
        giveBack(length - held);
        length = Math.min(atOnce, range.length - asked);
      }
      const window: Window = { chunks: [], state: "open", held, waiting: 0, taken: () => {} };
      windows.push(window);
      void fill(window, { offset: range.offset + asked, length });
      asked += length;
    }
  };

  try {
    // To the end of each body: a connection is kept only then.
    while (handedOut < range.length || windows.length > 0) {
      ask();
      const [first] = windows;
      const chunk = first?.chunks.shift();
      if (first !== undefined && chunk !== undefined) {
        yield chunk;
        handedOut += chunk.length;
        memory.handedOn(chunk.length);
        first.waiting -= chunk.length;
        if (first.held === 0) giveBack(chunk.length);
        first.taken();
      } else if (first?.state === "open") {
        sinceWait = 0;
        moved = Promise.withResolvers();
        await moved.promise;
      } else {
        if (typeof first?.state === "object") throw first.state.error;
        windows.shift();
        if (first !== undefined) giveBack(first.held);
        sinceWait++;
      }
    }
  } finally {
    stopListening();
    controller.abort();
    for (const window of windows) window.taken();
    giveBack(taken);
  }
}

async function* readWindow(
  store: BlobReader,
  { digest, size, isPack }: RangedBlob,
  range: ByteRange,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const stream = await store.readBlob(digest, {
    range: range.length === size ? undefined : range,
    size,
    isPack,
    signal,
  });
  if (stream === undefined) {
    throw new NixcacheError(
      "corrupt",
      `blob ${digest} of ${store.name} is absent, although the index names it`,
      {
        hint: "Run nixcache verify --repair, then publish the path again.",
      },
    );
  }
  let got = 0;
  for await (const chunk of stream) {
    got += chunk.length;
    if (got > range.length) break;
    if (chunk.length > 0) yield chunk;
  }
  if (got !== range.length) {
    throw new NixcacheError(
      "corrupt",
      `blob ${digest} of ${store.name}: got ${got} bytes, expected ${range.length}`,
    );
  }
}
