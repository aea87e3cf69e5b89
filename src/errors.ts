/**
 * The one error type that crosses module borders, and the exit code of each kind.
 *
 * An error says what was being done, to what, what was expected and what was found (`message`), and what to
 * do next (`hint`). The command line prints these two and nothing else; `cause` is for `--verbose`.
 */
import { redactUrls } from "./redact.ts";

/** Kinds of failure, with the exit code of the process. Codes are stable: scripts rely on them. */
export const EXIT_CODES = {
  /** A defect in nixcache itself. */
  internal: 1,
  /** Unknown flag, missing argument, a value of the wrong shape. */
  usage: 2,
  /** A path is not a valid path of the local Nix store, or the store cannot be read. */
  "nix-store": 3,
  /** A signing key cannot be read, is no key, or would be overwritten. */
  key: 4,
  /** A cache reference is none. */
  reference: 5,
  /** The address to listen on is taken or not ours. */
  listen: 6,
  /** A file or folder cannot be read or written. */
  filesystem: 7,
  /** The registry cannot be reached, or keeps failing. */
  unreachable: 8,
  /** The registry refuses the credentials, or they lack a right. */
  denied: 9,
  /** A layout folder holds something else. */
  layout: 10,
  /** What was read does not match its digest, size or format. */
  corrupt: 11,
  /** The publish was committed, but some paths could not be uploaded and were left out; the same of a copy. */
  incomplete: 12,
  /** The registry answered with something that the protocol does not allow. */
  protocol: 13,
  /** `verify` found a cache that is not clean. */
  damaged: 14,
  /** Some outputs could not be built; what could be was published. */
  build: 15,
  /** `doctor` found something wrong, or `use` that Nix will not use the cache. */
  unwell: 16,
  /** What was asked for is not in the cache: a generation, a pin, a branch to keep, or a path. */
  absent: 17,
  /** What was published cannot be read back: the registry changes, drops or hides it. */
  unreadable: 18,
  /** The clocks of this machine and of the registry are too far apart to end or delete anything. */
  clock: 19,
  /** Interrupted by a signal, or aborted by the caller. */
  interrupted: 130,
} as const;

export type ErrorCode = keyof typeof EXIT_CODES;

export interface ErrorOptions {
  /** What the person should do next, as a sentence. */
  hint?: string;
  cause?: unknown;
}

export class NixcacheError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(printable(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "NixcacheError";
    this.code = code;
    this.hint = options.hint === undefined ? undefined : printable(options.hint);
  }

  get exitCode(): number {
    return EXIT_CODES[this.code];
  }
}

/** The longest message, in UTF-16 units. What quotes a stranger shortens it long before, by `preview`. */
const MAX_MESSAGE_LENGTH = 4000;

/** What drives a terminal, turns the direction of its text, or ends a line. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** Within one line of a terminal, and without passwords: messages quote names, URLs and answers of strangers. */
export function printable(given: string): string {
  const text = redactUrls(given);
  const short = text.length > MAX_MESSAGE_LENGTH ? `${text.slice(0, MAX_MESSAGE_LENGTH)}…` : text;
  return short.replace(
    UNPRINTABLE,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`,
  );
}

/** A short form of any value for a message: its JSON, at most `length` characters of it. */
export function preview(value: unknown, length = 80): string {
  // A long text is cut first: a line of an index may have 4 MiB.
  const short = typeof value === "string" ? value.slice(0, length) : value;
  let text: string;
  try {
    text = JSON.stringify(short) ?? String(short);
  } catch {
    // JSON.parse takes any depth, JSON.stringify gives up with a RangeError.
    return "a value that is nested too deeply";
  }
  return text.length > length || short !== value ? `${text.slice(0, length)}…` : text;
}

/** Without what stands before the @ of a URL, and in its query: it may be a password. */
export function withoutUser(text: string): string {
  // One that stands behind // may have any characters: whoever does not escape them is told so.
  return text.replace(/(\/\/)[^"]*@|(^|")[^/@"]*@/g, "$1$2…@").replace(/\?[^"]+/g, "?…");
}

/** The text of anything that was thrown, without a stack. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error such as `ENOENT`, where there is one. */
export function systemCode(error: unknown): string | undefined {
  if (typeof error !== "object" || error === null || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
