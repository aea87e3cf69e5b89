/**
 * Paths that clients take by their signature and whose closure they refuse, since the build that is shown of something
 * in it bears no signature that they trust.
 */
import { type KeyRing, Standing, shownLine, standingOfInfo } from "../cache/builds.ts";
import { type EntryLine, entryOf } from "../cache/entry.ts";
import { storeHashOf } from "../nar/store-path.ts";
import type { Finding } from "./finding.ts";

/**
 * @param lines of all generations
 * @param keys those that were given are the ones that clients trust; without any, those that records name
 */
export function refusedReferences(lines: readonly EntryLine[], keys: KeyRing): Finding[] {
  const byHash = Map.groupBy(lines, ({ storeHash }) => storeHash);
  const shown = new Map(
    [...byHash].flatMap(([hash, of]) => {
      const line = shownLine(of, () => keys);
      return line === undefined ? [] : [[hash, entryOf(line).info] as const];
    }),
  );
  const trusted = keys.given.length > 0 ? { given: keys.given, named: [] } : keys;
  const standing = new Map([...shown].map(([hash, info]) => [hash, standingOfInfo(info, trusted)]));
  const isTaken = (hash: string) => (standing.get(hash) ?? Standing.Unsigned) >= Standing.ContentAddressed;
  return [...shown].flatMap(([hash, { storePath, references }]) => {
    // Content-addressed paths are taken by themselves, from caches without a key too.
    if ((standing.get(hash) ?? Standing.Unsigned) < Standing.SignedByNamed) return [];
    return references
      .filter((reference) => shown.has(storeHashOf(reference)) && !isTaken(storeHashOf(reference)))
      .map((reference): Finding => {
        const detail = `clients that trust its key refuse ${reference}, which is not signed by it`;
        return { kind: "reference-refused", subject: storePath, detail };
      });
  });
}
