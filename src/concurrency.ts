/** Bounded parallelism. */

/**
 * Maps with at most `limit` calls under way, results in the order of the items. After a failure no new call
 * starts; the calls under way are awaited, then the first error is thrown.
 */
export async function mapConcurrently<T, R>(
  items: readonly T[],
  limit: number,
  call: (item: T, index: number) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length);
  let next = 0;
  let failed: { error: unknown } | undefined;
  const worker = async () => {
    while (failed === undefined && next < items.length) {
      const index = next++;
      try {
        results[index] = await call(items[index] as T, index);
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(limit, items.length) }, worker));
  if (failed !== undefined) throw (failed as { error: unknown }).error;
  return results;
}

/** Both calls at once where `limit` is over one, else one after the other. Throws the first one's error, then the other's. */
export async function bothConcurrently<A, B>(
  limit: number,
  first: () => Promise<A>,
  second: () => Promise<B>,
): Promise<[A, B]> {
  if (limit < 2) return [await first(), await second()];
  const [one, other] = await Promise.allSettled([first(), second()]);
  if (one.status === "rejected") throw one.reason;
  if (other.status === "rejected") throw other.reason;
  return [one.value, other.value];
}

/**
 * Calls once and keeps what comes of it, for those as well who ask meanwhile. A failure is told to them and not kept:
 * who asks later calls again.
 */
export function kept<A extends unknown[], T>(call: (...args: A) => Promise<T>): (...args: A) => Promise<T> {
  let under: Promise<T> | undefined;
  return (...args) => {
    under ??= call(...args).catch((error) => {
      under = undefined;
      throw error;
    });
    return under;
  };
}

/** Lets at most `limit` holders in at once, in the order they asked. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(limit: number) {
    this.#free = limit;
  }

  async run<R>(call: () => Promise<R>): Promise<R> {
    if (this.#free > 0) this.#free--;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await call();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}
