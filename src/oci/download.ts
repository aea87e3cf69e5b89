/**
 * A download that goes on after a break: a stream over as many requests as it takes, each asking for the
 * bytes that are still missing. Pull-based: nothing is read that nobody asked for, so a slow reader holds the
 * sender back and never looks like a stalled one.
 */
import { NixcacheError } from "../errors.ts";
import { type Network, throwIfAborted } from "./network.ts";
import { Late, networkFailure, type RetryPolicy, TransientFailure, withRetry } from "./retry.ts";

/** An answer whose body begins `skip` bytes before what was asked for. */
export interface Opened {
  readonly body: ReadableStream<Uint8Array> | null;
  /** Bytes to throw away first: all before the offset, where the server ignored the Range. */
  readonly skip: number;
  /** Whether the body ends where the stream does; more bytes are then an error, otherwise they are cut off. */
  readonly exact: boolean;
  readonly close: () => void;
}

export interface DownloadOptions {
  /** For messages: `GET ghcr.io/…`. */
  readonly what: string;
  /** Bytes that the stream has in all. */
  readonly length: number;
  /** The answer that the caller has already. */
  readonly first: Opened;
  /**
   * Asks again for all from byte `done` of the stream on; undefined when it is gone. One try: throws a
   * TransientFailure for what another may mend.
   */
  readonly reopen: (done: number) => Promise<Opened | undefined>;
  readonly policy: RetryPolicy;
  readonly network: Network;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A stream of exactly `length` bytes, or an error: `unreachable` when it breaks more often in a row than the policy
 * allows without a byte in between, `corrupt` when there are more bytes than asked for.
 */
export function download(options: DownloadOptions): ReadableStream<Uint8Array> {
  const { what, length, policy, network, signal } = options;
  let source: Source | undefined = attach(options.first);
  let done = 0;
  /** Breaks since the last byte. */
  let breaks = 0;
  let cancelled = false;

  const check = (): void => {
    throwIfAborted(signal, network.signal);
    if (cancelled) throw new NixcacheError("interrupted", `${what}: nobody reads it any more`);
  };

  const again = (): Promise<Source> =>
    withRetry(
      policy,
      network,
      async () => {
        check();
        const opened = await options.reopen(done);
        if (opened !== undefined) return attach(opened);
        throw new NixcacheError(
          "unreachable",
          `${what}: the blob was deleted after ${done} of ${length} bytes`,
        );
      },
      signal,
    );

  const next = async (): Promise<Uint8Array> => {
    for (;;) {
      source ??= await again();
      try {
        check();
        const chunk = await readChunk(source, options);
        if (chunk !== undefined) return chunk;
        throw networkFailure(what, new Error(`the body ended after ${done} of ${length} bytes`));
      } catch (error) {
        source.close();
        source = undefined;
        check();
        if (error instanceof NixcacheError) throw error;
        breaks++;
        if (breaks >= policy.attempts) throw error instanceof TransientFailure ? error.failure : error;
      }
    }
  };

  /** All bytes are there; one more would mean that this is something else. A break changes nothing now. */
  const refuseMore = async (): Promise<void> => {
    if (source?.exact !== true) return;
    const more = await readChunk(source, options).catch(() => undefined);
    if (more !== undefined)
      throw new NixcacheError("corrupt", `${what}: got more than the expected ${length} bytes`);
  };

  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          if (done < length) {
            let chunk = await next();
            if (done + chunk.length > length) {
              if (source?.exact === true) {
                throw new NixcacheError("corrupt", `${what}: got more than the expected ${length} bytes`);
              }
              chunk = chunk.subarray(0, length - done);
            }
            done += chunk.length;
            breaks = 0;
            controller.enqueue(chunk);
            if (done < length || source?.exact === true) return;
          }
          await refuseMore();
          source?.close();
          controller.close();
        } catch (error) {
          source?.close();
          controller.error(error);
        }
      },
      cancel() {
        cancelled = true;
        source?.close();
      },
    },
    { highWaterMark: 0 },
  );
}

interface Source {
  readonly read: () => Promise<{ done: boolean; value?: Uint8Array | undefined }>;
  skip: number;
  readonly exact: boolean;
  readonly close: () => void;
}

function attach({ body, skip, exact, close }: Opened): Source {
  const reader = body?.getReader();
  return { read: async () => (await reader?.read()) ?? { done: true }, skip, exact, close };
}

/** The next bytes that count, undefined at the end of the body. Fails when nothing moves for too long. */
async function readChunk(source: Source, options: DownloadOptions): Promise<Uint8Array | undefined> {
  const { policy, network, what } = options;
  for (;;) {
    let stalled = false;
    const stop = network.timer(policy.stallTimeoutMs, () => {
      stalled = true;
      source.close();
    });
    try {
      const { done, value } = await source.read();
      if (done || value === undefined) {
        // An aborted body may look like one that has ended.
        if (stalled) throw new Error("stalled");
        return undefined;
      }
      if (value.length === 0) continue;
      if (source.skip >= value.length) {
        source.skip -= value.length;
        continue;
      }
      const chunk = source.skip === 0 ? value : value.subarray(source.skip);
      source.skip = 0;
      return chunk;
    } catch (error) {
      throw networkFailure(what, stalled ? new Late(`no byte for ${policy.stallTimeoutMs / 1000} s`) : error);
    } finally {
      stop();
    }
  }
}
