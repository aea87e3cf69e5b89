/**
 * Where a registry has sent readers of its blobs: to a storage host, by links that are good for minutes. Further
 * ranges of a blob go there at once, which saves half of the requests.
 */
import type { Digest } from "./digest.ts";

/** Of blobs that are being read, of a few hundred bytes each. */
const MAX_LINKS = 1000;

export class StorageLinks {
  readonly #links = new Map<Digest, URL>();

  /** @param registry the registry's own origin: what it answers itself is no link */
  constructor(readonly registry: string) {}

  get(digest: Digest): URL | undefined {
    return this.#links.get(digest);
  }

  /** @param url where the blob came from */
  remember(digest: Digest, url: URL): void {
    if (url.origin === this.registry) return;
    this.#links.delete(digest);
    this.#links.set(digest, url);
    const [oldest] = this.#links.keys();
    if (this.#links.size > MAX_LINKS && oldest !== undefined) this.#links.delete(oldest);
  }

  forget(digest: Digest): void {
    this.#links.delete(digest);
  }
}
