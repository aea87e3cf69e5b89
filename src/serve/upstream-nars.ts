/**
 * NARs of upstream caches in the disk cache of ours: a narinfo that states its file's hash and size makes that file
 * a blob like any other. What it states is checked only here (clients check the unpacked NAR), so an upstream that
 * states it wrongly loses the disk cache and nothing else.
 */
import type { NarLocation } from "../cache/index-reader.ts";
import { NixcacheError } from "../errors.ts";
import { parseHash } from "../nar/hash.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { type BlobCache, downloadAtOnce } from "../oci/blob-cache.ts";
import type { Digest } from "../oci/digest.ts";
import type { BlobReader } from "../protocol/blob-range.ts";
import { LeftAlone } from "../upstream/failure.ts";
import { Lru } from "./lru.ts";
import { cut } from "./range.ts";
import type { ClientRequest } from "./upstreams.ts";

/** More than the closure of any system; about 8 MiB. */
const KNOWN_NARS = 32_768;

export type FetchNar = (request: ClientRequest) => Promise<Response | "absent" | "failed">;

export class UpstreamNars {
  readonly #cache: BlobCache;
  /** By the URL in the narinfo. */
  readonly #known = new Lru<{ readonly digest: Digest; readonly size: number }>(KNOWN_NARS);

  constructor(cache: BlobCache) {
    this.#cache = cache;
  }

  /** @param narinfo of an upstream, as it is passed on */
  learn(narinfo: string): void {
    const { url, fileHash, fileSize } = parseNarInfo(narinfo);
    if (fileHash === undefined || fileSize === undefined) return;
    const digest: Digest = `sha256:${Buffer.from(parseHash(fileHash, "FileHash").bytes).toString("hex")}`;
    this.#known.set(url, { digest, size: fileSize });
  }

  /** It is not what its narinfo states. */
  forget(url: string): void {
    this.#known.delete(url);
  }

  /**
   * Where the NAR of this URL can be read, if a narinfo has told of it.
   * @param fetchNar asks the upstreams for it
   */
  find(
    url: string,
    client: ClientRequest,
    fetchNar: FetchNar,
  ): { located: NarLocation; store: BlobReader } | undefined {
    const known = this.#known.get(url);
    if (known === undefined || known.size === 0) return undefined;
    const { digest, size } = known;
    const store = this.#cache.over(
      { name: `the upstream, ${url},`, readBlob: (_, options) => read(url, size, client, fetchNar, options) },
      // Not every upstream has ranges.
      { download: downloadAtOnce, onWrong: () => this.forget(url) },
    );
    return {
      located: { parts: [{ blob: digest, size, offset: 0, length: size }] },
      store,
    };
  }
}

async function read(
  url: string,
  size: number,
  client: ClientRequest,
  fetchNar: FetchNar,
  options: Parameters<BlobReader["readBlob"]>[1] = {},
): ReturnType<BlobReader["readBlob"]> {
  const { signal } = options;
  const range = options.range?.length === size ? undefined : options.range;
  const headers = new Headers();
  const via = client.headers.get("via");
  if (via !== null) headers.set("via", via);
  if (range) headers.set("range", `bytes=${range.offset}-${range.offset + range.length - 1}`);
  const found = await fetchNar({ method: "GET", headers, signal: signal ?? client.signal });
  if (found === "absent") return undefined;
  if (found === "failed") throw new LeftAlone(`GET ${url}: no upstream answered`);
  // Who has no ranges gives all of it.
  if (found.status === 200) return (range && found.body ? cut(found.body, range) : found.body) ?? undefined;
  const isRange = found.headers.get("content-range")?.startsWith(`bytes ${range?.offset}-`) === true;
  if (found.status === 206 && isRange) return found.body ?? undefined;
  await found.body?.cancel();
  throw new NixcacheError(
    "unreachable",
    `GET ${url}: got status ${found.status} from the upstream, expected ${range ? "the range asked for" : "the file"}`,
  );
}
