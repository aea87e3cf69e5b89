/**
 * What becomes of each path of a closure: the cache has it already and it is restated, an upstream has it and
 * it is left out, the cache has another build of it that is signed and stays, or it is new. What an upstream has
 * signed it has: it is not asked.
 */
import { type EntryLine, entryOf } from "../cache/entry.ts";
import { mapConcurrently } from "../concurrency.ts";
import type { NarInfo } from "../nar/narinfo.ts";
import { fingerprint, verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import { storeHashOf } from "../nar/store-path.ts";
import type { PathInfo } from "../nix/store.ts";
import type { Upstream } from "../upstream/client.ts";
import { UpstreamQuestions } from "../upstream/questions.ts";
import { baseName } from "./entries.ts";

/** Questions to upstreams under way at once. */
const UPSTREAM_CONCURRENCY = 32;

export interface Selection {
  readonly restated: ReadonlyMap<string, EntryLine>;
  readonly upstream: ReadonlySet<string>;
  /** In the order of the closure. */
  readonly fresh: readonly PathInfo[];
  /** Of fresh paths, the cache's line for another build, which the new one replaces. */
  readonly replaced: ReadonlyMap<string, EntryLine>;
  /** Paths of which the cache has another build that is signed: that one stays. */
  readonly kept: ReadonlyMap<string, EntryLine>;
  /** Lines of generations that do not count, for builds that are in the closure. */
  readonly uncounted: readonly EntryLine[];
}

export interface SelectContext {
  /** The cache's own line for a store hash. */
  readonly known: (storeHash: string) => EntryLine | undefined;
  /** A line of generations that do not count for this publisher. Default: there are none. */
  readonly uncounted?: ((storeHash: string) => EntryLine | undefined) | undefined;
  /** Whether clients may take what a line says by its signatures. */
  readonly isSigned: (line: EntryLine) => boolean;
  /** Replace signed builds that differ. Default: keep them. */
  readonly replaceSigned?: boolean | undefined;
  readonly upstreams: readonly Upstream[];
  /** Keys of upstreams. A path that one of these has signed is upstream. Default: none. */
  readonly upstreamKeys?: readonly PublicKey[];
  readonly signal?: AbortSignal | undefined;
  readonly warn: (message: string) => void;
}

/** Upstreams that cannot be reached count as not having anything: uploading too much is no loss. */
export async function select(closure: readonly PathInfo[], context: SelectContext): Promise<Selection> {
  const restated = new Map<string, EntryLine>();
  const others = new Map<string, EntryLine>();
  const unknown: PathInfo[] = [];
  const uncounted: EntryLine[] = [];
  for (const info of closure) {
    const line = context.known(storeHashOf(info.path));
    if (line !== undefined && isSameBuild(info, entryOf(line).info)) {
      restated.set(info.path, line);
      continue;
    }
    unknown.push(info);
    // Of what does not count nothing is restated; that somebody has signed another build is worth knowing.
    const other = line ?? context.uncounted?.(storeHashOf(info.path));
    if (other === undefined) continue;
    if (isSameBuild(info, entryOf(other).info)) uncounted.push(other);
    else others.set(info.path, other);
  }
  const questions = new UpstreamQuestions(context.upstreams, {
    ...{ signal: context.signal, warn: context.warn },
    consequence: "so nothing is left out for it",
  });
  const found = await mapConcurrently(unknown, UPSTREAM_CONCURRENCY, async (info) => {
    if (hasKeyOf(info, context.upstreamKeys ?? [])) return true;
    return (await questions.ask(storeHashOf(info.path), { build: signedFieldsOf(info) })) === "has";
  });
  const upstream = new Set(unknown.filter((_, i) => found[i]).map(({ path }) => path));
  const isKept = ([path, line]: readonly [string, EntryLine]) =>
    !upstream.has(path) && !context.replaceSigned && context.isSigned(line);
  const kept = new Map([...others].filter(isKept));
  return {
    restated,
    upstream,
    fresh: unknown.filter(({ path }) => !upstream.has(path) && !kept.has(path)),
    replaced: new Map([...others].filter((other) => !isKept(other))),
    kept,
    uncounted,
  };
}

/** Whether they agree in all that a signature covers. */
function isSameBuild(info: PathInfo, known: NarInfo): boolean {
  return fingerprint(signedFieldsOf(info)) === fingerprint(known);
}

function signedFieldsOf(info: PathInfo) {
  return { ...info, storePath: info.path, references: info.references.map(baseName) };
}

function hasKeyOf(info: PathInfo, keys: readonly PublicKey[]): boolean {
  return verifyNarInfo(signedFieldsOf(info), keys);
}
