/** Some paths of a cache, drawn by chance, and whether keys vouch for them. */
import { type Entry, entryOf } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import type { Host } from "../host.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";

/** Of store hashes. */
const ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

export interface Sample {
  /** Store paths that one of the keys has signed. */
  readonly signed: readonly string[];
  /** Those that none of them has. */
  readonly unsigned: readonly string[];
}

/** Content-addressed paths need no signature and are left out. */
export function sample(
  view: IndexReader,
  keys: readonly PublicKey[],
  count: number,
  host: Pick<Host, "random">,
): Sample {
  const [signed, unsigned]: [string[], string[]] = [[], []];
  for (const { info } of draw(view, count, host)) {
    if (isContentAddressed(info)) continue;
    (verifyNarInfo(info, keys) ? signed : unsigned).push(info.storePath);
  }
  return { signed, unsigned };
}

/** As many as there are, at most `count`: hashes are spread evenly, so those from any point on are as good as any. */
function draw(view: IndexReader, count: number, { random }: Pick<Host, "random">): Entry[] {
  const start = Array.from({ length: 32 }, () => ALPHABET[Math.floor(random() * 32)]).join("");
  const after = view.hashesFrom(start, count);
  const hashes = new Set([...after, ...view.hashesFrom("", count - after.length)]);
  return [...hashes].flatMap((hash) => {
    const line = view.line(hash);
    return line === undefined ? [] : [entryOf(line)];
  });
}
