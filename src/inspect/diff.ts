/** What changed between two generations, as `nix store diff-closures` tells it of two closures. */
import type { Totals } from "../cache/catalog.ts";
import type { PublishRecord } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";
import { splitPackageName } from "../nar/package-name.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { type HeldPath, readContents } from "./contents.ts";

export interface Side {
  readonly name: GenerationName;
  readonly record: PublishRecord;
  readonly totals: Totals;
}

export type Change =
  /** In the later one alone, in the earlier one alone. */
  | "added"
  | "removed"
  /** Other versions of it. */
  | "changed"
  /** The same versions, as other paths. */
  | "rebuilt";

export interface PackageChange {
  readonly name: string;
  readonly change: Change;
  /** Versions that only one of the two has, in order; the empty text for a name without one. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** Versions that both have. */
  readonly kept: readonly string[];
  /** Bytes of the NARs of all its paths. */
  readonly sizeBefore: number;
  readonly sizeAfter: number;
}

export interface Difference {
  readonly before: Side;
  readonly after: Side;
  /** Paths that only one of the two has, by name. */
  readonly added: readonly HeldPath[];
  readonly removed: readonly HeldPath[];
  /** Packages with a path that only one of the two has, by name. */
  readonly packages: readonly PackageChange[];
}

/** @throws `absent`, `corrupt` */
export async function diffGenerations(
  context: ProtocolContext,
  before: GenerationName,
  after: GenerationName,
): Promise<Difference> {
  const [one, other] = await Promise.all([readSide(context, before), readSide(context, after)]);
  const only = (these: Paths, others: Paths) =>
    [...these.values()].filter(({ hash }) => !others.has(hash)).sort(byName);
  return {
    before: one.side,
    after: other.side,
    added: only(other.paths, one.paths),
    removed: only(one.paths, other.paths),
    packages: comparePackages(one.paths, other.paths),
  };
}

/** By store hash. */
type Paths = ReadonlyMap<string, HeldPath>;

async function readSide(
  context: ProtocolContext,
  name: GenerationName,
): Promise<{ side: Side; paths: Paths }> {
  const paths = new Map<string, HeldPath>();
  const record = await readContents(context, name, (path) => paths.set(path.hash, path));
  const files = new Map([...paths.values()].map(({ file, fileSize }) => [file, fileSize ?? 0]));
  let [narSize, fileSize] = [0, 0];
  for (const path of paths.values()) narSize += path.narSize;
  for (const size of files.values()) fileSize += size;
  return { side: { name, record, totals: { paths: paths.size, narSize, fileSize } }, paths };
}

function comparePackages(before: Paths, after: Paths): PackageChange[] {
  const [earlier, later] = [byPackage(before), byPackage(after)];
  return [...new Set([...earlier.keys(), ...later.keys()])].sort().flatMap((name) => {
    const [one, other] = [earlier.get(name) ?? [], later.get(name) ?? []];
    const differ = one.some(({ hash }) => !after.has(hash)) || other.some(({ hash }) => !before.has(hash));
    return differ ? [comparePackage(name, one, other)] : [];
  });
}

function comparePackage(name: string, one: readonly HeldPath[], other: readonly HeldPath[]): PackageChange {
  const [versions, newVersions] = [versionsOf(one), versionsOf(other)];
  const before = [...versions.difference(newVersions)].sort();
  const after = [...newVersions.difference(versions)].sort();
  return {
    name,
    change: changeOf(one, other, before.length + after.length > 0),
    before,
    after,
    kept: [...versions.intersection(newVersions)].sort(),
    sizeBefore: sizeOf(one),
    sizeAfter: sizeOf(other),
  };
}

function changeOf(one: readonly HeldPath[], other: readonly HeldPath[], hasOtherVersions: boolean): Change {
  if (one.length === 0) return "added";
  if (other.length === 0) return "removed";
  return hasOtherVersions ? "changed" : "rebuilt";
}

function byPackage(paths: Paths): Map<string, HeldPath[]> {
  return Map.groupBy(paths.values(), ({ name }) => splitPackageName(name).name);
}

function versionsOf(paths: readonly HeldPath[]): Set<string> {
  return new Set(paths.map(({ name }) => splitPackageName(name).version));
}

function sizeOf(paths: readonly HeldPath[]): number {
  return paths.reduce((sum, { narSize }) => sum + narSize, 0);
}

function byName(a: HeldPath, b: HeldPath): number {
  if (a.name !== b.name) return a.name < b.name ? -1 : 1;
  return a.hash < b.hash ? -1 : 1;
}
