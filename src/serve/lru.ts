interface Entry<V> {
  /** Its own text: a piece of another one would keep all of that in memory. */
  readonly key: string;
  readonly value: V;
  readonly size: number;
}

/** A map of a bounded size: what was not used for the longest time goes first. */
export class Lru<V> {
  readonly #maxSize: number;
  /** A Map keeps the order of insertion; what is used is inserted anew. */
  readonly #entries = new Map<string, Entry<V>>();
  #size = 0;

  /** @param maxSize of all values together, in the unit of `set` */
  constructor(maxSize: number) {
    this.#maxSize = maxSize;
  }

  get(key: string): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#entries.delete(entry.key);
    this.#entries.set(entry.key, entry);
    return entry.value;
  }

  set(key: string, value: V, size = 1): void {
    this.delete(key);
    const entry = { key: Buffer.from(key).toString(), value, size };
    this.#entries.set(entry.key, entry);
    this.#size += size;
    for (const oldest of this.#entries.keys()) {
      if (this.#size <= this.#maxSize) break;
      this.delete(oldest);
    }
  }

  delete(key: string): void {
    this.#size -= this.#entries.get(key)?.size ?? 0;
    this.#entries.delete(key);
  }
}
