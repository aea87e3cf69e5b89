/** The closure of a store path, as far as a cache has it: what its references lead to. */
import { parseNarInfo } from "../nar/narinfo.ts";
import { parseBaseName, parseStorePath } from "../nar/store-path.ts";

/** Paths between two pauses, two or three milliseconds. */
const PATHS_PER_SLICE = 25;

export interface ClosurePath {
  /** The store hash. */
  readonly hash: string;
  readonly name: string;
  readonly narSize: number;
  readonly fileSize: number | null;
}

export interface Closure {
  /** Paths that the cache has, in the order in which they were found. */
  readonly paths: readonly ClosurePath[];
  /** Number of references that the cache does not have: upstream caches do. */
  readonly elsewhere: number;
  /** Whether the walk ended before it came to the end. */
  readonly cut: boolean;
}

/**
 * @param find the narinfo of a store hash
 * @param limit paths after which the walk ends
 * @param pause lets others have their turn; rejects to stop the walk
 * @throws `corrupt` for a narinfo that is none
 */
export async function walkClosure(
  root: string,
  find: (hash: string) => string | undefined,
  { limit, pause }: { limit: number; pause: () => Promise<void> },
): Promise<Closure> {
  // What one path refers to may be much: the set is bounded, too.
  const seen = new Set([root]);
  const waiting = [root];
  const paths: ClosurePath[] = [];
  let elsewhere = 0;
  for (let looked = 0; waiting.length > 0 && looked < limit; looked++) {
    if (looked > 0 && looked % PATHS_PER_SLICE === 0) await pause();
    const hash = waiting.pop() as string;
    const narinfo = find(hash);
    if (narinfo === undefined) {
      elsewhere++;
      continue;
    }
    const { storePath, narSize, fileSize = null, references } = parseNarInfo(narinfo, hash);
    paths.push({ hash, name: parseStorePath(storePath).name, narSize, fileSize });
    for (const reference of references) {
      const to = parseBaseName(reference).hash;
      if (seen.has(to) || seen.size >= 2 * limit) continue;
      seen.add(to);
      waiting.push(to);
    }
  }
  return { paths, elsewhere, cut: waiting.length > 0 };
}
