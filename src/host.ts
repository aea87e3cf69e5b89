/**
 * The clock, the random source and the waiting that pure code and adapters receive as an argument, so that
 * tests run them at any date and without sleeping. The real one is made in `context.ts`.
 */
export interface Host {
  /** Milliseconds since 1970, UTC. */
  now(): number;
  /** Uniform in [0, 1). */
  random(): number;
  /** Resolves after `ms` milliseconds; rejects with the signal's reason when it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** An id of 16 lower-case hexadecimal characters (64 random bits), unique for tags and file names. */
export function randomId(host: Pick<Host, "random">): string {
  let id = "";
  while (id.length < 16)
    id += Math.floor(host.random() * 0x1_0000)
      .toString(16)
      .padStart(4, "0");
  return id;
}
