/**
 * Publishing while something builds. What is finished is uploaded and committed in rounds, each a partial generation of
 * all so far, which the run's final one replaces; a run that is killed keeps what its last round committed.
 *
 * One round at a time, so that builds keep the machine; a round that fails is tried again, and in the end everything
 * is left to the final publish.
 */
import { messageOf } from "../errors.ts";
import type { Host } from "../host.ts";
import type { BuiltPath } from "../nix/built.ts";
import type { PublishResult } from "../publish/publish.ts";
import type { PathSource } from "./source.ts";
import type { Stopping } from "./stopping.ts";

/** Between two looks at what is finished, in milliseconds. */
const LOOK_EVERY_MS = 1_000;

/** From the beginning of a round to that of the next, in milliseconds, unless there is enough for one. */
const ROUND_EVERY_MS = 60_000;

/** After a round that failed the next one waits longer, up to this. */
const MAX_WAIT_MS = 10 * 60_000;

/** What one round takes on at most: the more it has, the longer it takes to its commit. Bytes of NARs, paths. */
const ROUND_BYTES = 1024 ** 3;
const ROUND_PATHS = 500;

export interface WatchOptions {
  readonly source: PathSource;
  /**
   * Commits a partial generation of these paths and of what they refer to, of what is uploaded by the time that `until`
   * fires.
   */
  readonly publish: (paths: readonly string[], until: AbortSignal) => Promise<PublishResult>;
  readonly stopping: Stopping;
  readonly host: Host;
  readonly log: { info(message: string): void; warn(message: string): void };
}

/**
 * Runs `job` and publishes what it finishes. A round that is under way at its end is waited for.
 *
 * @throws what `job` throws; once the signal fired its reason, after what could be uploaded in a hurry is committed.
 */
export async function publishWhile<T>(job: () => Promise<T>, options: WatchOptions): Promise<T> {
  const { signal, cut } = options.stopping;
  const watch = new Watch(options);
  const running = job();
  const ended = running.then(
    () => {},
    () => {},
  );
  const watching = watch.run();
  await Promise.race([ended, fired(signal)]);
  watch.close();
  await watching;
  if (signal.aborted) {
    await watch.lastRound();
    await Promise.race([ended, fired(cut)]);
    throw signal.reason;
  }
  return running;
}

class Watch {
  readonly #options: WatchOptions;
  readonly #closed = new AbortController();
  /** In the order in which they became valid, so that references come first. */
  #waiting: BuiltPath[] = [];
  #committed: string[] = [];
  #round: Promise<void> | undefined;
  #notBefore = Number.NEGATIVE_INFINITY;
  #regularAt = Number.NEGATIVE_INFINITY;
  #wait = ROUND_EVERY_MS;
  #said: string | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Ends once it is closed and no round is under way. */
  async run(): Promise<void> {
    const { host } = this.#options;
    const { signal } = this.#closed;
    for (;;) {
      // First of all: where everything is there already, the job is over by then.
      await host.sleep(LOOK_EVERY_MS, signal).catch(() => {});
      if (signal.aborted) break;
      this.#look();
      if (this.#round === undefined && this.#isDue()) {
        this.#round = this.#publish(batchOf(this.#waiting)).finally(() => {
          this.#round = undefined;
        });
      }
    }
    // A build's last paths come with its end.
    this.#look();
    await this.#round;
  }

  close(): void {
    this.#closed.abort();
  }

  /** Everything that waits, as far as there is time. For after `run`. */
  async lastRound(): Promise<void> {
    if (this.#waiting.length > 0 && !this.#options.stopping.until.aborted) {
      await this.#publish([...this.#waiting]);
    }
  }

  #look(): void {
    try {
      this.#waiting.push(...this.#options.source.news());
    } catch (error) {
      this.#warn(`cannot see what is finished: ${messageOf(error)}`);
    }
  }

  #isDue(): boolean {
    const now = this.#options.host.now();
    if (this.#waiting.length === 0 || now < this.#notBefore) return false;
    return now >= this.#regularAt || batchOf(this.#waiting).length < this.#waiting.length;
  }

  /** @param batch from the head of what waits, where it stays if this fails */
  async #publish(batch: readonly BuiltPath[]): Promise<void> {
    const { publish, source, stopping, host, log } = this.#options;
    const paths = batch.map(({ path }) => path);
    this.#regularAt = host.now() + ROUND_EVERY_MS;
    try {
      const result = await publish([...this.#committed, ...paths], stopping.until);
      const { uploaded } = result.paths;
      if (result.generation !== null) log.info(`published while building: ${uploaded} new paths so far`);
      // Some may not have been uploaded in time.
      if (stopping.until.aborted) return;
      this.#waiting = this.#waiting.slice(batch.length);
      this.#committed.push(...paths);
      this.#wait = ROUND_EVERY_MS;
      source.committed(paths);
    } catch (error) {
      this.#warn(`what is finished is not published yet: ${messageOf(error)}`);
      this.#notBefore = host.now() + this.#wait;
      this.#wait = Math.min(MAX_WAIT_MS, this.#wait * 2);
    }
  }

  #warn(message: string): void {
    if (message !== this.#said) this.#options.log.warn(message);
    this.#said = message;
  }
}

/** The first of what waits, as much as one round takes; at least one. */
function batchOf(waiting: readonly BuiltPath[]): BuiltPath[] {
  const batch: BuiltPath[] = [];
  let bytes = 0;
  for (const path of waiting) {
    bytes += path.narSize;
    if (batch.length > 0 && (batch.length === ROUND_PATHS || bytes > ROUND_BYTES)) break;
    batch.push(path);
  }
  return batch;
}

function fired(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
