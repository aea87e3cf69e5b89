/**
 * The tag list of a registry repository, page by page.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-tags
 */

import { NixcacheError } from "../errors.ts";
import { resolveLocation } from "../network/egress.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import { parseNextLink } from "./link.ts";
import { parseJson } from "./manifest.ts";
import { FEW_ATTEMPTS, orOtherWay } from "./other-way.ts";
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

interface Page {
  readonly tags: readonly string[];
  readonly next: string | undefined;
  readonly size: number;
}

export function registryTags({ transport, network, at }: RegistryContext): Pick<Store, "listTags"> {
  const listTags: Store["listTags"] = async ({ signal } = {}) => {
    const tags = new Set<string>();
    const seen = new Set<string>();
    let left = MAX_LIST_BYTES;
    const first = at(`tags/list?n=${PAGE_TAGS}`);
    const unsized: Page = { tags: [], next: at("tags/list").href, size: 0 };
    let url: URL | undefined = first;
    while (url !== undefined) {
      const exchange: Exchange = {
        method: "GET",
        url,
        access: "pull",
        headers: { accept: "application/json" },
        ...(url === first && { faultAttempts: FEW_ATTEMPTS }),
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
      const ask = () =>
        transport.callWhole(exchange, left, (answer) => {
          // A cache that does not exist yet has no tags; one that vanishes between two pages is none of that.
          if (answer.kind === "absent" && (url === first || url?.href === unsized.next)) return "absent";
          if (answer.status !== 200) throw unexpected(what, answer);
          const next = parseNextLink(answer.headers.get("link"));
          return { tags: tagsIn(answer.bytes, what), next, size: answer.bytes.length };
        });
      // Pages of our size are a wish.
      const page: Page | "absent" =
        (url === first ? await orOtherWay(ask, signal, network.signal) : await ask()) ?? unsized;
      if (page === "absent") return [];
      left -= page.size;
      for (const tag of page.tags) tags.add(tag);
      const next: string | undefined = page.next;
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
