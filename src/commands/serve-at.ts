/** `serve --at`: which generation that is, and what it does not go with. */
import type { GenerationName } from "../cache/tags.ts";
import { type Context, openCache } from "../context.ts";
import { NixcacheError } from "../errors.ts";
import { knownGenerations } from "../inspect/known.ts";
import { fullName, SELECTOR_HELP, selectGeneration } from "../inspect/selector.ts";
import type { CacheReference } from "../oci/reference.ts";
import type { Arguments } from "./command.ts";
import type { Trusted } from "./trust.ts";

export const AT_ARGS = {
  at: {
    type: "string",
    valueHint: "GENERATION",
    description: `Serve the cache as it was: only ${SELECTOR_HELP}`,
  },
} as const;

/**
 * Undefined without `--at`. A whole name needs no request, so that a restart works while the registry is down.
 * @throws `usage`, `absent`, and when the cache cannot be read
 */
export async function generationToServe(
  given: Arguments,
  references: readonly CacheReference[],
  trust: Trusted,
  context: Context,
): Promise<GenerationName | undefined> {
  const selector = given.text("at");
  const [reference] = references;
  if (selector === undefined || reference === undefined) return undefined;
  if (given.flag("writable")) {
    throw new NixcacheError("usage", "--at: got --writable as well, and what was cannot be written to", {
      hint: "Leave one of the two out.",
    });
  }
  if (references.length > 1) {
    throw new NixcacheError(
      "usage",
      `--at: got ${references.length} caches, expected the one whose generation it is`,
      { hint: "Give --cache once." },
    );
  }
  const name = fullName(selector);
  if (name !== undefined) return name;
  using cache = openCache(reference, "read", context, { trust });
  return selectGeneration(selector, await knownGenerations(cache.protocol));
}
