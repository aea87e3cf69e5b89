/**
 * The text of a nix.conf: lines that make Nix use a cache, in a block of their own with a mark above and below, so that
 * they can be taken out again and the rest is what it was, byte by byte.
 *
 * Nix reads lines in order, and `substituters = …` throws away what `extra-substituters = …` above it has added: so
 * the block is at the end. A text is one character for each byte, as files of settings have no known encoding.
 * https://nix.dev/manual/nix/latest/command-ref/conf-file
 */
import { NixcacheError, printable } from "../errors.ts";
import { isLoopback } from "../oci/reference.ts";

export interface ConfLines {
  /** The reference of the cache, by which its block is known. */
  readonly cache: string;
  /** Where serve answers. */
  readonly url: string;
  /** `name:base64`. */
  readonly keys: readonly string[];
}

/** Nix tries five times, so that a server that is switched off costs half a minute. */
const CONNECT_TIMEOUT_S = 5;

/** What the text was like where the block was put behind it, for whoever takes the block out. */
const NO_NEWLINE = "; the line above had no end";
const NEW_FILE = "; the file is new";

/** How a block begins, without what the text was like. */
const begin = (cache: string) => asBytes(`# nixcache ${printable(cache)}: from here`);
const end = (cache: string) => asBytes(`# nixcache ${printable(cache)}: to here`);

/**
 * The lines themselves, as a person would write them. Without `fallback` newer Nix ends every build while a server that it
 * knows is down, and Nix waits for minutes for a machine that is switched off.
 * @param own names of settings that the person has made, whose word counts
 */
export function confLines({ url, keys }: ConfLines, own: ReadonlySet<string> = new Set()): string[] {
  const lines = [`extra-substituters = ${url}`];
  if (keys.length > 0) lines.push(`extra-trusted-public-keys = ${keys.join(" ")}`);
  if (!own.has("fallback")) lines.push("fallback = true");
  if (!own.has("connect-timeout") && !isLoopback(new URL(url).hostname)) {
    lines.push(`connect-timeout = ${CONNECT_TIMEOUT_S}`);
  }
  return lines;
}

/**
 * The text with the lines in it. The same text where they are there already.
 * @param text undefined for a file that is not there
 * @throws `filesystem` for a block without its end
 */
export function addLines(text: string | undefined, wanted: ConfLines): string {
  const before = text ?? "";
  const block = findBlock(before, wanted.cache);
  if (block !== undefined) {
    const { from, to, state } = block;
    return before.slice(0, from) + format(wanted, state, before) + before.slice(to);
  }
  if (saysAll(before, wanted)) return before;
  if (text === undefined) return format(wanted, NEW_FILE, before);
  const open = before !== "" && !before.endsWith("\n");
  return open ? `${before}\n${format(wanted, NO_NEWLINE, before)}` : before + format(wanted, "", before);
}

export interface Removal {
  /** Undefined when the file was made for the lines, and nothing else has come into it. */
  readonly text: string | undefined;
  /** Lines that name the cache beside others, as numbers from 1 in `text`: a person must take them apart. */
  readonly left: readonly number[];
}

/**
 * The text without the block, and without lines outside of it that are exactly the ones that `confLines` gives.
 * @throws `filesystem` for a block without its end
 */
export function removeLines(before: string, wanted: ConfLines): Removal {
  let text = before;
  let isNew = false;
  const block = findBlock(text, wanted.cache);
  if (block !== undefined) {
    const { from, to, state } = block;
    const [head, rest] = [text.slice(0, from), text.slice(to)];
    // The block of another cache that was put behind this one stands where this one stood.
    const next = /^# nixcache .*: from here(?=\r?\n)/.exec(rest)?.[0];
    if (next !== undefined) text = head + next + state + rest.slice(next.length);
    else text = (state === NO_NEWLINE && rest === "" ? head.slice(0, -1) : head) + rest;
    isNew = state === NEW_FILE && next === undefined;
  }
  text = withoutExact(text, wanted);
  if (isNew && text === "") return { text: undefined, left: [] };
  return { text, left: linesNaming(text, [wanted.url, ...wanted.keys]) };
}

/** Names of the settings that a person has made in it. */
export function said(text: string): ReadonlySet<string> {
  return new Set(readSettings(withoutBlocks(text)).map(({ name }) => name));
}

/** @param text that the block is for */
function format(wanted: ConfLines, state: string, text: string): string {
  const lines = [
    begin(wanted.cache) + state,
    ...confLines(wanted, said(text)).map(asBytes),
    end(wanted.cache),
  ];
  return `${lines.join("\n")}\n`;
}

interface Block {
  /** Of its first character, and behind its last one. */
  readonly from: number;
  readonly to: number;
  readonly state: string;
}

function findBlock(text: string, cache: string): Block | undefined {
  const [first, last] = [begin(cache), end(cache)];
  let open: { from: number; state: string; line: number } | undefined;
  let at = 0;
  for (const [index, raw] of text.split("\n").entries()) {
    const line = raw.trimEnd();
    const state = line.startsWith(first) ? line.slice(first.length) : undefined;
    if (open === undefined && (state === "" || state === NO_NEWLINE || state === NEW_FILE)) {
      open = { from: at, state, line: index + 1 };
    } else if (open !== undefined && line === last) {
      return { from: open.from, to: Math.min(text.length, at + raw.length + 1), state: open.state };
    }
    at += raw.length + 1;
  }
  if (open === undefined) return undefined;
  throw new NixcacheError(
    "filesystem",
    `nix.conf line ${open.line}: the lines of ${cache} begin there, and their end is missing`,
    { hint: "Take them out by hand, with the comment above them." },
  );
}

/** Comments are left out, values are separated by blanks. */
function readSettings(text: string): { name: string; values: string[] }[] {
  return text.split("\n").map((raw) => {
    const [name = "", , ...values] = raw.replace(/#.*$/, "").trim().split(/\s+/);
    return { name, values };
  });
}

/** Whether a person has written all of it already. What we wrote for another cache goes when that goes. */
function saysAll(text: string, { url, keys }: ConfLines): boolean {
  const settings = readSettings(withoutBlocks(text));
  const says = (of: string, value: string) =>
    settings.some(({ name, values }) => name.replace(/^extra-/, "") === of && values.includes(value));
  return says("substituters", url) && keys.every((key) => says("trusted-public-keys", key));
}

/** What a person has written. */
function withoutBlocks(text: string): string {
  return allBlocks(text).reduceRight((rest, { from, to }) => rest.slice(0, from) + rest.slice(to), text);
}

function withoutExact(text: string, { url, keys }: ConfLines): string {
  const lines = [`extra-substituters = ${url}`];
  // Keys are often written one a line, and the ones of before a change of keys stay until then.
  lines.push(...keys.map((key) => `extra-trusted-public-keys = ${key}`));
  if (keys.length > 1) lines.push(`extra-trusted-public-keys = ${keys.join(" ")}`);
  const exact = new Set(lines.map(asBytes));
  const blocks = allBlocks(text);
  let at = 0;
  let kept = "";
  for (const raw of text.split(/(?<=\n)/)) {
    const isInBlock = blocks.some(({ from, to }) => at >= from && at < to);
    if (isInBlock || !exact.has(raw.trimEnd())) kept += raw;
    at += raw.length;
  }
  return kept;
}

/** Those of other caches, whose lines may be the same. */
function allBlocks(text: string): Block[] {
  const caches = text.matchAll(/^# nixcache (.*): from here(?:;.*)?$/gm);
  return [...caches].flatMap(([, cache = ""]) => findBlock(text, fromBytes(cache)) ?? []);
}

function linesNaming(text: string, values: readonly string[]): number[] {
  const blocks = allBlocks(text);
  let at = 0;
  return text.split("\n").flatMap((raw, index) => {
    const start = at;
    at += raw.length + 1;
    if (blocks.some(({ from, to }) => start >= from && start < to)) return [];
    const [setting] = readSettings(raw);
    return setting?.values.some((value) => values.includes(value)) ? [index + 1] : [];
  });
}

function asBytes(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

function fromBytes(text: string): string {
  return Buffer.from(text, "latin1").toString("utf8");
}
