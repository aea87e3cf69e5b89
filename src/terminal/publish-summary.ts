/** What a publish has done, in GitHub's Markdown, for the page of a job. */
import { countStatuses, escapeCell, type OutputRow, renderMarkdown } from "../build/report.ts";
import type { NewPath } from "../publish/memory.ts";
import type { PublishResult } from "../publish/publish.ts";
import { formatBytes, formatCount, formatDuration } from "./format.ts";

export interface PublishFacts {
  readonly result: PublishResult;
  readonly holdings: { readonly cacheName: string; readonly paths: number; readonly generations: number };
  /** Of the outputs that were to be built. */
  readonly rows: readonly OutputRow[] | undefined;
  /** Milliseconds. */
  readonly buildMs: number | undefined;
  readonly uploadMs: number;
  readonly dryRun: boolean;
  /** As clients trust it; undefined when nothing is signed. */
  readonly publicKey: string | undefined;
}

/** Rows of a list: the largest new paths, those that were left out. */
const MAX_ROWS = 50;

/** Sections, what matters most first. */
export function publishSummary(facts: PublishFacts): string[] {
  const { result, holdings, rows, publicKey, dryRun } = facts;
  const title = `## ${dryRun ? "Would publish" : "Published"} to ${code(holdings.cacheName)}\n`;
  const sections = [title, figures(facts)];
  if (publicKey === undefined) sections.push(UNSIGNED);
  if (result.leftOut.length > 0) sections.push(leftOut(result));
  sections.push(...outputs(rows));
  if (result.newPaths.length > 0) sections.push(newPaths(result.newPaths));
  return sections;
}

export interface UnpublishedFacts {
  readonly cacheName: string;
  /** Of the outputs that were to be built. */
  readonly rows: readonly OutputRow[] | undefined;
  /** Why nothing was published. */
  readonly why: string;
  /** Whether nothing was to be published. */
  readonly isExpected: boolean;
}

/** What was built, where nothing of it was published. */
export function unpublishedSummary({ cacheName, rows, why, isExpected }: UnpublishedFacts): string[] {
  const title = `## Not published to ${code(cacheName)}\n`;
  const reason = `> [!${isExpected ? "NOTE" : "CAUTION"}]\n> ${escapeCell(why)}\n`;
  return [title, reason, ...outputs(rows)];
}

const UNSIGNED = `> [!NOTE]
> No signing key is set, so clients refuse what is published unless they trust another key on it. Make one with
> \`nixcache keygen NAME\`, add the secret as \`NIX_SIGNING_KEY\` to the repository's secrets, and let clients trust the
> public key (\`extra-trusted-public-keys\` in nix.conf).
`;

function figures({ result, holdings, buildMs, uploadMs, publicKey }: PublishFacts): string {
  const { paths, bytes, newPaths, leftOut, generation } = result;
  const compressed = newPaths.reduce((sum, { fileSize }) => sum + (fileSize ?? 0), 0);
  const after = newPaths.some(({ fileSize }) => fileSize !== null)
    ? `, ${formatBytes(compressed)} compressed, ${formatBytes(bytes.sent)} sent`
    : "";
  const sizes = newPaths.length > 0 ? `: ${formatBytes(bytes.nar)} of NARs${after}` : "";
  const rows: (readonly [string, string])[] = [
    ["New", `${formatCount(paths.uploaded, "path")}${sizes}`],
    ["Skipped", `${paths.restated} in the cache already, ${paths.upstream} in upstream caches`],
    ...(leftOut.length > 0
      ? [["Left out", `${formatCount(leftOut.length, "path")}, see below`] as const]
      : []),
    ...(buildMs === undefined ? [] : [["Evaluating and building", formatDuration(buildMs)] as const]),
    ["Uploading", formatDuration(uploadMs)],
    ["Generation", generation === null ? "none: nothing has changed" : code(generation)],
    [
      "The cache holds",
      `${formatCount(holdings.paths, "path")} in ${formatCount(holdings.generations, "generation")}`,
    ],
    ...(publicKey === undefined ? [] : [["Public key", code(publicKey)] as const]),
  ];
  return ["| | |", "|---|---|", ...rows.map(([name, value]) => `| ${name} | ${value} |`), ""].join("\n");
}

function outputs(rows: readonly OutputRow[] | undefined): string[] {
  return rows === undefined
    ? []
    : [`### Outputs\n\n${countStatuses(rows) || "none"}\n`, renderMarkdown(rows)];
}

function leftOut({ leftOut }: PublishResult): string {
  const rows = leftOut
    .slice(0, MAX_ROWS)
    .map(({ path, reason }) => `| ${code(path)} | ${escapeCell(reason)} |`);
  return ["### Left out\n", "| path | why |", "|---|---|", ...rows, more(leftOut.length)].join("\n");
}

function newPaths(paths: readonly NewPath[]): string {
  const largest = paths.toSorted((a, b) => b.narSize - a.narSize).slice(0, MAX_ROWS);
  const rows = largest.map(({ path, narSize, fileSize }) => {
    return `| ${code(path)} | ${formatBytes(narSize)} | ${fileSize === null ? "" : formatBytes(fileSize)} |`;
  });
  return [
    `<details><summary>${formatCount(paths.length, "new path")}, the largest first</summary>\n`,
    ...["| path | NAR | compressed |", "|---|---|---|", ...rows, more(paths.length)],
    "</details>\n",
  ].join("\n");
}

function more(count: number): string {
  return count > MAX_ROWS ? `\n… and ${count - MAX_ROWS} more.\n` : "";
}

function code(text: string): string {
  return `<code>${escapeCell(text)}</code>`;
}
