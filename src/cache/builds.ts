/**
 * The builds of one store path, and which of them is shown.
 *
 * Several generations may have a line each for one path. Lines that agree in what a signature covers are one build:
 * each signature on one of them is good for all, so a build has the signatures of all its lines. Lines that differ in
 * it are different builds of a path that cannot be reproduced; clients take the one that is shown, and refuse it where
 * they trust none of its signatures.
 *
 * What is here depends on the lines alone, whatever their order and whichever of them were put together before, so
 * that every machine shows the same.
 */
import { isContentAddressed } from "../nar/content-address.ts";
import { type NarInfo, parseNarInfo } from "../nar/narinfo.ts";
import { fingerprint, isSignature, signerOf, verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import type { EntryLine } from "./entry.ts";

/** Signatures of one build. Lines that together have more stay apart: a narinfo has at most 1 MiB. */
const MAX_SIGNATURES = 256;

/** Keys that are tried for one build: records may name as many as they like. */
const MAX_KEYS = 64;

/** The keys by which a reader tells builds apart. */
export interface KeyRing {
  /** Those that the reader was given: what these have signed comes first. */
  readonly given: readonly PublicKey[];
  /** Those that the records of live generations name. */
  readonly named: readonly PublicKey[];
}

/** How much speaks for a build; the greatest is shown. */
export enum Standing {
  /** No signature, or none that can be right. */
  Unsigned,
  /** Signatures by keys that are not known. */
  SignedByUnknown,
  /** Its path follows from its content address. */
  ContentAddressed,
  /** A good signature by a key that a live generation names. */
  SignedByNamed,
  /** A good signature by a key that the reader was given. */
  SignedByGiven,
}

interface Read {
  readonly line: EntryLine;
  readonly info: NarInfo;
  /** The narinfo without what is gathered from all lines: signatures and content address. */
  readonly body: string;
}

/** The line that is shown of several for one path; the only one as it is. */
export function shownLine(lines: readonly EntryLine[], keys: () => KeyRing): EntryLine | undefined {
  if (lines.length < 2) return lines[0];
  const builds = buildsOf(lines);
  if (builds.length < 2) return builds[0];
  const ring = keys();
  return builds.reduce((best, build) => (compareShown(build, best, ring) > 0 ? build : best));
}

/** Over 0 when `a` is shown before `b`: lines of different builds, or of different paths. */
export function compareShown(a: EntryLine, b: EntryLine, keys: KeyRing): number {
  return standingOf(a, keys) - standingOf(b, keys) || compareMade(read(a), read(b));
}

/**
 * All that may be shown to anybody, whatever the keys: a line for each build that bears something, with the signatures
 * of all its lines, and the last made of those that bear nothing, unless another was made later. In the order in which
 * they were made.
 */
export function buildsOf(lines: readonly EntryLine[]): EntryLine[] {
  if (lines.length < 2) return [...lines];
  // Generations restate each other's lines.
  const distinct = new Map(lines.map((line) => [`${line.narinfo} ${line.rest}`, line]));
  const [bearing, bare] = partition([...distinct.values()].map(read), bearsAnything);
  const builds = [...Map.groupBy(bearing, ({ info }) => fingerprint(info)).values()];
  const gathered = builds.flatMap((of) => gather(of) ?? of).sort(compareMade);
  const newest = bare.sort(compareMade).at(-1);
  const last = gathered.at(-1);
  const isShown = newest && (last === undefined || compareMade(newest, last) > 0);
  return [...gathered, ...(isShown ? [newest] : [])].map(({ line }) => line);
}

/** What speaks for a line. */
export function standingOf({ narinfo, storeHash }: EntryLine, keys: KeyRing): Standing {
  return standingOfInfo(parseNarInfo(narinfo, storeHash), keys);
}

export function standingOfInfo(info: NarInfo, { given, named }: KeyRing): Standing {
  const byName = Map.groupBy(info.sigs, signerOf);
  const known = (keys: readonly PublicKey[]) =>
    keys.filter(({ name }) => byName.has(name)).slice(0, MAX_KEYS);
  const [ours, theirs] = [known(given), known(named)];
  // Clients who trust the name give up on the path.
  if (ours.some(({ name }) => !byName.get(name)?.every(isSignature))) return Standing.Unsigned;
  if (verifyNarInfo(info, ours)) return Standing.SignedByGiven;
  // Two keys may have one name: a record names what its writer likes.
  if (theirs.some((key) => verifyNarInfo(info, [key]))) return Standing.SignedByNamed;
  if (isContentAddressed(info)) return Standing.ContentAddressed;
  const names = new Set([...ours, ...theirs].map(({ name }) => name));
  const isUnknown = info.sigs.some((sig) => isSignature(sig) && !names.has(signerOf(sig)));
  return isUnknown ? Standing.SignedByUnknown : Standing.Unsigned;
}

function bearsAnything({ info }: Read): boolean {
  return info.sigs.some(isSignature) || isContentAddressed(info);
}

function partition<T>(items: readonly T[], isFirst: (item: T) => boolean): [T[], T[]] {
  return [items.filter(isFirst), items.filter((item) => !isFirst(item))];
}

/** Lines of one build as one: the one made last, with what the others bear. Undefined when that is too much. */
function gather(lines: readonly Read[]): Read | undefined {
  if (lines.length === 1) return lines[0];
  const sigs = new Set(lines.flatMap(({ info }) => info.sigs.filter(isSignature)));
  if (sigs.size > MAX_SIGNATURES) return undefined;
  const [last] = lines.toSorted((a, b) => compareMade(b, a)) as [Read];
  const addresses = lines.flatMap(({ info }) => (isContentAddressed(info) ? (info.ca ?? []) : []));
  const lastMade = lines.filter((line) => compareMade(line, last) === 0);
  const ca = greatest(addresses) ?? greatest(lastMade.flatMap(({ info }) => info.ca ?? []));
  const whole = lastMade.filter(({ info }) => {
    return info.ca === ca && info.sigs.length === sigs.size && info.sigs.every((sig) => sigs.has(sig));
  });
  if (whole.length > 0)
    return whole.reduce((a, b) => (compareBytes(a.line.narinfo, b.line.narinfo) > 0 ? a : b));
  // In an order that is less than any other, so that whichever lines were put together first makes no difference.
  const gathered = [...[...sigs].sort().map((sig) => `Sig: ${sig}\n`), ...(ca ? [`CA: ${ca}\n`] : [])];
  return read({ ...last.line, narinfo: last.body + gathered.join("") });
}

function read(line: EntryLine): Read {
  const { narinfo, storeHash } = line;
  const body = narinfo
    .split("\n")
    .filter((text) => !text.startsWith("Sig: ") && !text.startsWith("CA: "))
    .join("\n");
  return { line, info: parseNarInfo(narinfo, storeHash), body };
}

/** By when lines were made, then by all that is not gathered. */
function compareMade(a: Read, b: Read): number {
  return (
    a.line.added - b.line.added || compareBytes(a.body, b.body) || compareBytes(a.line.rest, b.line.rest)
  );
}

function greatest(texts: readonly string[]): string | undefined {
  return texts.toSorted().at(-1);
}

/** JavaScript would compare UTF-16 units. */
function compareBytes(a: string, b: string): number {
  return a === b ? 0 : Buffer.compare(Buffer.from(a), Buffer.from(b));
}
