/**
 * What a request for a NAR gets that cannot be had (rule 8). Seen alike with Nix 2.8, 2.26 and 2.34: on a 404 Nix goes
 * on to the next substituter, or builds, in the middle of a NAR as well; on a 5xx it tries five times in some 4.5 s, and
 * then the build has failed, unless `fallback` is set.
 *
 * So a download that begins gets a 404. One that broke and is resumed, by a Range, is worth waiting for: a 5xx while the
 * outage may be short, and a 404 in time for the last of Nix's tries.
 */
import { Lru } from "./lru.ts";

/** Nix's `download-attempts` is 5: the first one, which broke, three that get a 5xx, and the last. */
const MOST_REFUSALS = 3;

/** How long a resumed download is held until its bytes can be had, in milliseconds; and how often they are asked for. */
export const RESUME_WAIT_MS = 2_000;
export const ASK_EVERY_MS = 500;

/** A refusal or a damage of so long ago tells nothing of a download of now, in milliseconds. */
const FORGET_MS = 60_000;

/** Downloads that broke, of a hundred bytes each. */
const KNOWN_FILES = 4_096;

interface Broken {
  /** Resumed downloads that were refused since the last byte. */
  readonly refusals: number;
  /** Whether what was sent of it is wrong, so that no rest can make it right. */
  readonly isWrong: boolean;
  /** By the clock. */
  readonly at: number;
}

/** Downloads that broke, by the file. */
export class BrokenDownloads {
  readonly #known = new Lru<Broken>(KNOWN_FILES);
  readonly #clock: () => number;

  /** @param clock milliseconds, by a clock that never goes back */
  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /** Some of its bytes could be had. */
  moved(file: string): void {
    this.#known.delete(file);
  }

  /** Its bytes are not what they should be, and some were sent. */
  foundWrong(file: string): void {
    this.#known.set(file, { refusals: MOST_REFUSALS, isWrong: true, at: this.#clock() });
  }

  /** Whether resuming it can only bring a wrong NAR. */
  isWrong(file: string): boolean {
    return this.#find(file)?.isWrong === true;
  }

  /** A resumed download gets nothing now. @returns whether the client should try again */
  refuse(file: string): boolean {
    const { refusals, isWrong } = this.#find(file) ?? { refusals: 0, isWrong: false };
    const isLast = refusals >= MOST_REFUSALS;
    if (isLast) this.moved(file);
    else this.#known.set(file, { refusals: refusals + 1, isWrong, at: this.#clock() });
    return !isLast;
  }

  #find(file: string): Broken | undefined {
    const known = this.#known.get(file);
    return known !== undefined && this.#clock() - known.at < FORGET_MS ? known : undefined;
  }
}
