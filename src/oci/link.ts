/**
 * The `Link` header that leads to the next page of a tag list.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#listing-tags, RFC 8288
 */

/** The target of the first link whose `rel` is `next`; undefined when there is none. Never throws. */
export function parseNextLink(header: string | null): string | undefined {
  if (header === null || header.length > 16_384) return undefined;
  let at = 0;
  while (at < header.length) {
    const open = header.indexOf("<", at);
    const close = open < 0 ? -1 : header.indexOf(">", open);
    if (close < 0) return undefined;
    const end = endOfLink(header, close + 1);
    if (isNext(header.slice(close + 1, end))) return header.slice(open + 1, close);
    at = end + 1;
  }
  return undefined;
}

/** The index of the comma that ends the link, or the length: commas within quotes belong to a parameter. */
function endOfLink(header: string, from: number): number {
  let quoted = false;
  for (let i = from; i < header.length; i++) {
    const c = header[i];
    if (quoted && c === "\\") i++;
    else if (c === '"') quoted = !quoted;
    else if (c === "," && !quoted) return i;
  }
  return header.length;
}

/** Reads the parameters in order, so that one within the quotes of another is none. */
function isNext(parameters: string): boolean {
  const parameter = /;\s*([^\s=;"]+)\s*(?:=\s*(?:"((?:\\.|[^"\\])*)"|([^\s;,"]*)))?/g;
  for (const [, name, quoted, bare] of parameters.matchAll(parameter)) {
    // The first rel counts, further ones are to be ignored (RFC 8288, 3.3).
    if (name?.toLowerCase() === "rel")
      return (quoted ?? bare ?? "").toLowerCase().split(/\s+/).includes("next");
  }
  return false;
}
