/** What Nix's events say about a build while it runs: what is shown of them, and what is remembered. */

import { shorten } from "../nix/error-text.ts";
import { ACTIVITY, INFO_LEVEL, type LogEvent, RESULT } from "../nix/log-event.ts";

/** Last lines of a build's log that are kept, and UTF-16 units of each. */
const TAIL = 25;
const MAX_LINE = 500;

export interface DerivationLog {
  /** Milliseconds, of the clock that `add` was given. */
  readonly started: number;
  /** When it failed, or Nix let go of it; later than its end when it is a target itself. */
  ended: number | undefined;
  /** Its last lines, printable. */
  readonly tail: string[];
}

/** For a line that is drawn over while Nix builds. */
export interface BuildState {
  /** Derivations that are built, that will be in all, and that failed. */
  readonly built: number;
  readonly expected: number;
  readonly failed: number;
  /** Names of those that are being built, in the order they began. */
  readonly running: readonly string[];
  /** The last line of a build log. */
  readonly lastLine: string;
}

/** Up to 2.8 of substituters alone; a setting without its `extra-`. */
const IGNORED = /ignoring (?:untrusted substituter|the (?:user|client)-specified setting) '([^']*)'/;

export class BuildLog {
  readonly #show: (line: string) => void;
  readonly #given: readonly string[];
  /** Derivations that are being built, by activity. */
  readonly #active = new Map<string, string>();
  readonly #progress = new Map<string, readonly (string | number)[]>();
  readonly #overall = new Set<string>();
  #lastLine = "";
  /** By derivation. */
  readonly builds = new Map<string, DerivationLog>();
  /** Why derivations failed that did not just miss another one. */
  readonly failures = new Map<string, string>();
  /** What Nix builds in the place of a derivation, since the paths of what it needs are known by now. */
  readonly #resolved = new Map<string, string>();
  /** Nix's first warning that a setting given by us does not count, as its daemon does not trust this user. */
  untrusted: string | undefined;
  /** The last error that names no derivation. */
  error: string | undefined;

  /**
   * @param show gets each line that Nix would show, printable.
   * @param given the arguments that Nix was given. The same warnings come for what a person's own settings say.
   */
  constructor(show: (line: string) => void, given: readonly string[] = []) {
    this.#show = show;
    this.#given = given;
  }

  /** @param now milliseconds */
  add(event: LogEvent, now: number): void {
    switch (event.action) {
      case "start":
        if (event.level <= INFO_LEVEL && event.text !== "") this.#show(printableLine(event.text));
        if (event.type === ACTIVITY.builds) this.#overall.add(event.id);
        if (event.type === ACTIVITY.waiting && event.fields.length === 2) {
          this.#resolved.set(String(event.fields[0]), String(event.fields[1]));
        }
        if (event.type === ACTIVITY.build) {
          const drvPath = String(event.fields[0]);
          this.#active.set(event.id, drvPath);
          this.builds.set(drvPath, { started: now, ended: undefined, tail: [] });
        }
        break;
      case "stop":
        this.#end(this.#active.get(event.id), now);
        this.#active.delete(event.id);
        break;
      case "result":
        if (event.type === RESULT.logLine) this.#logLine(event.id, String(event.fields[0]));
        if (event.type === RESULT.progress && this.#overall.has(event.id)) {
          this.#progress.set(event.id, event.fields);
        }
        break;
      case "message":
        this.#message(event.text, event.error, now);
    }
  }

  buildOf(drvPath: string): DerivationLog | undefined {
    return this.builds.get(drvPath) ?? this.builds.get(this.#resolved.get(drvPath) ?? "");
  }

  /** Why a derivation itself failed. */
  failureOf(drvPath: string): string | undefined {
    return this.failures.get(drvPath) ?? this.failures.get(this.#resolved.get(drvPath) ?? "");
  }

  state(): BuildState {
    const sum = (field: number) =>
      [...this.#progress.values()].reduce((total, fields) => total + Number(fields[field] ?? 0), 0);
    // Nix keeps the activities of targets that are done.
    const running = [...this.builds].filter(([, { ended }]) => ended === undefined).map(([drv]) => drv);
    const count = sum(2);
    return {
      built: sum(0),
      expected: sum(1),
      failed: sum(3),
      running: running.slice(running.length - count).map(derivationName),
      lastLine: this.#lastLine,
    };
  }

  #end(drvPath: string | undefined, now: number): void {
    const build = drvPath === undefined ? undefined : this.builds.get(drvPath);
    if (build !== undefined) build.ended ??= now;
  }

  #logLine(id: string, text: string): void {
    const drvPath = this.#active.get(id);
    const build = drvPath === undefined ? undefined : this.builds.get(drvPath);
    if (drvPath === undefined || build === undefined) return;
    const line = printableLine(text);
    build.tail.push(line.slice(0, MAX_LINE));
    if (build.tail.length > TAIL) build.tail.shift();
    this.#lastLine = line;
    this.#show(`${derivationName(drvPath)}> ${line}`);
  }

  #message(text: string, isError: boolean, now: number): void {
    for (const line of `${isError ? "error: " : ""}${text}`.split("\n")) this.#show(printableLine(line));
    // Newer versions say on a second line which page of the manual to read.
    const [first = ""] = text.split("\n");
    const ignored = IGNORED.exec(first)?.[1];
    if (ignored !== undefined && [ignored, `extra-${ignored}`].some((name) => this.#given.includes(name)))
      this.untrusted ??= printableLine(first);
    if (!isError) return;
    const drvPath = /'(\/[^']*\/[0-9a-z]{32}-[^']*\.drv)'/.exec(text)?.[1];
    this.#end(drvPath, now);
    // The summary at the end, and those that miss others: "1 dependencies of derivation '…' failed to build".
    if (drvPath === undefined || /^build of |^\S*\s*dependenc|Reason: \d+ dependenc/.test(text)) {
      if (drvPath === undefined) this.error = printableLine(text);
      return;
    }
    if (!this.failures.has(drvPath)) this.failures.set(drvPath, failure(text, drvPath));
  }
}

/** `hello-2.12` of `/nix/store/…-hello-2.12.drv`. */
export function derivationName(drvPath: string): string {
  return drvPath.replace(/^.*\/[0-9a-z]{32}-|\.drv$/g, "");
}

/** The error without the derivation's path, which stands beside it, and without the log, which we have. */
function failure(text: string, drvPath: string): string {
  const [words = ""] = text.split(/[;.]?\s*(?:last \d+ log lines|Last \d+ log lines|Output paths):/);
  const reason = /Reason: (.*)/s.exec(words)?.[1] ?? words;
  const short = reason.replaceAll(`for '${drvPath}' `, "").replaceAll(` '${drvPath}'`, "");
  return shorten(printableLine(short.replace(/\s+/g, " ").trim().replace(/\.$/, "")));
}

/** Without colours and whatever else drives a terminal: build logs are strangers' words. */
function printableLine(text: string): string {
  return Bun.stripANSI(text)
    .replace(/\t/g, "    ")
    .replace(/^.*\r(?=.)/s, "")
    .replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, "");
}
