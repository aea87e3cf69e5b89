/**
 * The tag list of a registry repository, page by page.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-tags
 */

import { NixcacheError } from "../errors.ts";
import { resolveLocation } from "../network/egress.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import { parseNextLink } from "./link.ts";
import { parseJson } from "./manifest.ts";
import { isTag } from "./reference.ts";
import type { RegistryContext } from "./registry-context.ts";
import type { Store } from "./store.ts";
import { unexpected } from "./transport.ts";

const PAGE_TAGS = 1000;
const MAX_PAGES = 1000;
/**
 * All pages together: some 500,000 tags of ours. A page of 1000 tags has 130 KiB at most, but distribution 2.8
 * ignores `n` and sends all at once.
 */
const MAX_LIST_BYTES = 64 * 1024 * 1024;

export function registryTags({ transport, at }: RegistryContext): Pick<Store, "listTags"> {
  const listTags: Store["listTags"] = async ({ signal } = {}) => {
    const tags = new Set<string>();
    const seen = new Set<string>();
    let left = MAX_LIST_BYTES;
    const first = at(`tags/list?n=${PAGE_TAGS}`);
    let url: URL | undefined = first;
    while (url !== undefined) {
      const exchange: Exchange = {
        method: "GET",
        url,
        access: "pull",
        headers: { accept: "application/json" },
        accept: url === first ? [400, 422] : [],
        signal,
      };
      const what = describeExchange(exchange);
      if (seen.has(url.href) || seen.size >= MAX_PAGES) {
        throw new NixcacheError(
          "protocol",
          `${what}: the pages of the tag list do not end (${seen.size} so far)`,
        );
      }
      seen.add(url.href);
      const page = await transport.callWhole(exchange, left, (answer) => {
        // A cache that does not exist yet has no tags; one that vanishes between two pages is none of that.
        if (answer.kind === "absent" && seen.size === 1) return undefined;
        // Pages of our size are a wish.
        if (answer.kind !== "ok" && url === first) return { tags: [], next: at("tags/list").href, size: 0 };
        if (answer.status !== 200) throw unexpected(what, answer);
        const next = parseNextLink(answer.headers.get("link"));
        return { tags: tagsIn(answer.bytes, what), next, size: answer.bytes.length };
      });
      if (page === undefined) return [];
      left -= page.size;
      for (const tag of page.tags) tags.add(tag);
      const { next } = page;
      url = next === undefined ? undefined : resolveLocation(url, next, what);
      if (url !== undefined && url.origin !== transport.origin) {
        throw new NixcacheError(
          "protocol",
          `${what}: the next page is at ${url.origin}, expected ${transport.origin}`,
        );
      }
    }
    return [...tags];
  };

  return { listTags };
}

/** The tags of one page; distribution writes null for none. Names that are no tags are not ours: left out. */
function tagsIn(bytes: Uint8Array, what: string): string[] {
  const json = parseJson(bytes, what);
  const tags = typeof json === "object" && json !== null && "tags" in json ? (json.tags ?? []) : undefined;
  if (!Array.isArray(tags)) {
    throw new NixcacheError("protocol", `${what}: got JSON without a list "tags"`);
  }
  return tags.filter((tag): tag is string => typeof tag === "string" && isTag(tag));
}
