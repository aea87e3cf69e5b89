/** What changed between two generations, for people and for programs. */
import type { HeldPath } from "../inspect/contents.ts";
import type { Change, Difference, PackageChange, Side } from "../inspect/diff.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { formatBytes, formatCount } from "./format.ts";
import { sourceText, timeText } from "./generation.ts";
import { resultJson } from "./result-json.ts";
import { type Paint, painter, type Screen } from "./screen.ts";

const TITLES: readonly (readonly [Change, string])[] = [
  ["changed", "other versions"],
  ["rebuilt", "the same versions, other paths"],
  ["added", "added"],
  ["removed", "removed"],
];

/** Names are padded to the longest, up to this. */
const MAX_NAME = 32;

export function diffLines(difference: Difference, screen: Screen | undefined, now: number): string[] {
  const { before, after, packages, added, removed } = difference;
  const paint = painter(screen);
  const width = Math.min(MAX_NAME, Math.max(0, ...packages.map(({ name }) => name.length)));
  const sections = TITLES.flatMap(([change, title]) => {
    const those = packages.filter((one) => one.change === change);
    if (those.length === 0) return [];
    const lines = those.map((one) => packageLine(one, width, paint));
    return ["", paint("bold", `${formatCount(those.length, "package")}: ${title}`), ...lines];
  });
  const size = (kind: "narSize" | "fileSize") => {
    const [one, other] = [before.totals[kind], after.totals[kind]];
    return `${formatBytes(one)} → ${formatBytes(other)} (${delta(one, other)})`;
  };
  const totals =
    added.length + removed.length === 0
      ? ["both hold the same paths"]
      : [
          `${formatCount(added.length, "path")} added, ${removed.length} removed`,
          `${size("narSize")} unpacked`,
          `${size("fileSize")} compressed`,
        ];
  return [
    ...sideLines("-", "red", before, paint, now),
    ...sideLines("+", "green", after, paint, now),
    ...sections,
    "",
    ...totals,
  ];
}

/** Each path that only one of the two has. */
export function diffPathLines({ added, removed }: Difference, screen: Screen | undefined): string[] {
  const paint = painter(screen);
  return [
    ...removed.map((path) => paint("red", `- ${storePath(path)}`)),
    ...added.map((path) => paint("green", `+ ${storePath(path)}`)),
  ];
}

function sideLines(
  sign: string,
  style: "red" | "green",
  { name, record, totals }: Side,
  paint: Paint,
  now: number,
): string[] {
  return [
    `${paint(style, `${sign} ${name}`)}  ${timeText({ name }, now)}`,
    `  ${sourceText(record)}, ${formatCount(totals.paths, "path")}`,
  ];
}

function packageLine(one: PackageChange, width: number, paint: Paint): string {
  const { name, sizeBefore, sizeAfter } = one;
  const change = sizeBefore === sizeAfter ? "" : `  ${paint("dim", `(${delta(sizeBefore, sizeAfter)})`)}`;
  return `  ${name.padEnd(width)}  ${versionsText(one)}${change}`;
}

/** As `nix store diff-closures` writes them: `ε` is no version, `∅` none at all. */
export function versionsText({ change, before, after, kept }: PackageChange): string {
  switch (change) {
    case "rebuilt":
      return versions(kept);
    case "added":
      return versions(after);
    case "removed":
      return versions(before);
    case "changed":
      return `${versions(before)} → ${versions(after)}`;
  }
}

function versions(some: readonly string[]): string {
  if (some.length === 0) return "∅";
  return some
    .map((version) => version || "ε")
    .sort()
    .join(", ");
}

function delta(before: number, after: number): string {
  if (before === after) return "the same";
  return `${after > before ? "+" : "-"}${formatBytes(Math.abs(after - before))}`;
}

export function diffJson(cacheName: string, { before, after, packages, added, removed }: Difference): string {
  const side = ({ name, record: { time, source, branch, system, revision }, totals }: Side) => ({
    ...{ generation: name, time, source, branch, system, revision },
    ...totals,
  });
  const path = (held: HeldPath) => {
    const { name, narSize, fileSize } = held;
    return { path: storePath(held), name, narSize, fileSize };
  };
  return resultJson({
    cache: cacheName,
    before: side(before),
    after: side(after),
    packages,
    added: added.map(path),
    removed: removed.map(path),
  });
}

function storePath({ hash, name }: HeldPath): string {
  return `${STORE_DIR}/${hash}-${name}`;
}
