/**
 * The commands of a page as one bash script, in their order, each of which must go well. What cannot run here is told
 * apart by a table, and its words are kept, to be held against the definitions of our commands.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Block, Page } from "./docs.ts";
import { patternOf } from "./source-texts.ts";

/** What is not run, by how it begins. Each reason holds for all of it. */
export const NOT_RUN: readonly { readonly command: RegExp; readonly reason: string }[] = [
  { command: /^(NIXCACHE_\w+=\S+ )?npx --yes bun@/, reason: "these tests are what it runs" },
  { command: /^sudo /, reason: "it changes the machine" },
  { command: /^(nixos-rebuild|darwin-rebuild|home-manager) /, reason: "it needs the real nixpkgs" },
  { command: /^(systemctl|launchctl|journalctl) /, reason: "no service manager runs here" },
  { command: /^(gh|git clone|git push)\b/, reason: "GitHub cannot be reached" },
  { command: /^(nix run|nix profile install|nix flake) .*github:/, reason: "GitHub cannot be reached" },
  { command: /^docker login/, reason: "there is no account" },
  { command: /^(cachix|attic) /, reason: "others' services and programs are not here" },
];

/** What stands in a page for something of the reader's, and what takes its place here. The first ones win. */
export function substitute(text: string, world: ShellWorld): string {
  const { registry, repository, port, folder, binaryCache, elsewhere, releases } = world;
  const table: readonly [found: RegExp | string, by: string][] = [
    // The registry of these tests in the place of GitHub's, a repository for each page.
    [/(?<=NIXCACHE_REPO=)OWNER\/REPO/g, `${repository}/repo`],
    [
      /(?<!github:|--repo )\b(ghcr\.io\/)?OWNER\/REPO(\/nix-cache)?/g,
      `${registry}/${repository}/repo/nix-cache`,
    ],
    [/registry\.example\.org\//g, `${registry}/${repository}/`],
    // Others' caches: a small one of these tests, over HTTP.
    [/https:\/\/(NAME\.cachix\.org|attic\.example\.org\/NAME|cache\.nixos\.org)/g, binaryCache],
    ["https://github.com/OWNER/nixcache/releases/latest/download", releases],
    // The port that may be taken, and addresses that others could reach.
    [/http:\/\/cache\.lan:37515/g, `http://127.0.0.1:${port}`],
    [/\b37515\b/g, `${port}`],
    [/--listen 0\.0\.0\.0/g, "--listen 127.0.0.1"],
    [/(?<=[ =])\/(?=var\/|srv\/)/g, `${folder}/`],
    ["/nix/store/…-name", elsewhere],
    [/\bx86_64-linux\b/g, SYSTEM],
  ];
  return table.reduce((result, [found, by]) => result.replaceAll(found, by), text);
}

export const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux`;

export interface ShellWorld {
  /** Removed in the end. */
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  /** `127.0.0.1:PORT` */
  readonly registry: string;
  /** The first part of the names of repositories, for this page alone. */
  readonly repository: string;
  /** Free for serve. */
  readonly port: number;
  /** URL of a binary cache that is not ours. */
  readonly binaryCache: string;
  /** A store path in there. */
  readonly elsewhere: string;
  /** URL below which the files of a release are. */
  readonly releases: string;
}

export interface Statement {
  /** The block that it is in. */
  readonly at: string;
  readonly text: string;
  /** What must be printed, in a block that shows it: a command that may fail. */
  readonly expected?: string;
}

/** The statements of a page in their order. */
export function statementsOf(page: Page): Statement[] {
  return page.blocks.flatMap((block) => {
    if (block.language === "sh") return splitShell(block.text).map((text) => ({ at: block.at, text }));
    return block.language === "console" ? splitConsole(block) : [];
  });
}

/** At newlines, unless a backslash, a quote or a here-document goes on behind it. Comments are left out. */
export function splitShell(text: string): string[] {
  const found: string[] = [];
  let open = "";
  let end: string | undefined;
  for (const line of text.split("\n")) {
    open += open === "" ? line : `\n${line}`;
    if (end !== undefined) {
      if (line.trim() !== end) continue;
      end = undefined;
    } else {
      end = /<<-?\s*['"]?(\w+)/.exec(line)?.[1];
      if (end !== undefined || line.endsWith("\\") || isQuoteOpen(open)) continue;
    }
    if (!/^\s*(#.*)?$/.test(open)) found.push(open.trim());
    open = "";
  }
  if (open !== "") throw new Error(`a command does not end: ${open}`);
  return found;
}

function isQuoteOpen(text: string): boolean {
  const rest = text
    .replaceAll(/\\[\s\S]/g, "")
    .replaceAll(/"[^"]*"|'[^']*'/g, "")
    .replaceAll(/(^|\s)#.*/g, "");
  return /["']/.test(rest);
}

function splitConsole({ at, text }: Block): Statement[] {
  const [first, ...rest] = text.split(/^\$ /m);
  if (first !== "") throw new Error(`${at}: a console block begins with a prompt`);
  return rest.map((part) => {
    const lines = part.trimEnd().split("\n");
    const last = lines.findIndex((line) => !line.endsWith("\\"));
    return { at, text: lines.slice(0, last + 1).join("\n"), expected: lines.slice(last + 1).join("\n") };
  });
}

export function notRunReason(text: string): string | undefined {
  return NOT_RUN.find(({ command }) => command.test(text))?.reason;
}

/** serve stays in the foreground of a terminal of its own: here it goes on while the page does. */
const PRELUDE = `
set -eE -o pipefail
trap 'echo "$at: status $?: $BASH_COMMAND" >&2' ERR
server=
stop() { if [ -n "$server" ]; then kill "$server" || true; wait "$server" || true; server=; fi; }
trap stop EXIT
nixcache() {
  if [ "$1" != serve ]; then command nixcache "$@"; return; fi
  stop
  exec {said}< <(exec nixcache "$@" 2>> "$SERVE_LOG")
  server=$!
  read -r line <&"$said" || { cat "$SERVE_LOG" >&2; return 1; }
}
`;

/** @returns what went wrong, in words; nothing when all went well */
export async function runPage(page: Page, world: ShellWorld): Promise<string[]> {
  const { folder, env } = world;
  const statements = statementsOf(page).filter(({ text }) => notRunReason(text) === undefined);
  const script = statements.map(({ at, text, expected }, index) => {
    // What goes on in the background is our own server, which \`nixcache\` puts there.
    const own = substitute(text, world).replace(/(\bnixcache serve\b[\s\S]*?)\s&(\s*#.*)?$/, "$1");
    const run = expected === undefined ? own : `{ ${own}\n} > "${output(folder, index)}" 2>&1 || true`;
    return `at=${at}\n${run}\n`;
  });
  const file = join(folder, "page.sh");
  await writeFile(file, `${PRELUDE}\n${script.join("\n")}`);
  const child = Bun.spawn(["bash", file], {
    cwd: join(folder, "work"),
    env: { ...env, SERVE_LOG: join(folder, "serve.log") },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0) return [`${page.file}: status ${code}\n${stdout.slice(-2000)}${stderr.slice(-4000)}`];
  const failures: string[] = [];
  for (const [index, { at, text, expected }] of statements.entries()) {
    if (expected === undefined) continue;
    const printed = (await readFile(output(folder, index), "utf8")).trim();
    // Some of it is said of the reader's, some is quoted from the command.
    if (![expected, substitute(expected, world)].some((text) => patternOf(text).test(printed)))
      failures.push(`${at}: ${text} printed\n${printed}\nexpected\n${expected}`);
  }
  return failures;
}

function output(folder: string, index: number): string {
  return join(folder, `output-${index}`);
}

/**
 * The words of the programs that a statement would start, by bash itself, which finds none of them.
 * @param world for its folder
 */
export async function programsOf(text: string, world: Pick<ShellWorld, "folder">): Promise<string[][]> {
  const log = join(world.folder, "programs");
  await writeFile(log, "");
  const withoutInput = text.replaceAll(/(?<!<)<\s*[\w./-]+/g, "< /dev/null");
  const script = `command_not_found_handle() { { printf '%s\\0' "$@"; printf '\\n'; } >> "$LOG"; }\n${withoutInput}\n`;
  const child = Bun.spawn([Bun.which("bash") ?? "bash", "-c", script], {
    cwd: join(world.folder, "work"),
    env: { PATH: "/nowhere", LOG: log, HOME: world.folder },
    stdin: "ignore",
    stdout: "ignore",
    stderr: "ignore",
  });
  await child.exited;
  const lines = (await readFile(log, "utf8")).split("\0\n").filter((line) => line !== "");
  return lines.map((line) => line.split("\0"));
}

/** The arguments of nixcache in the words of a program, which may be another's to run it; else undefined. */
export function ownArguments(words: readonly string[]): string[] | undefined {
  const [program = "", ...rest] = words[0] === "sudo" ? words.slice(1) : words;
  if (/^(.*\/)?nixcache$/.test(program)) return rest;
  const behind = rest.indexOf("--");
  const isRun = program === "nix" && rest[0] === "run" && /nixcache/.test(rest[1] ?? "");
  return isRun && behind > 0 ? rest.slice(behind + 1) : undefined;
}
