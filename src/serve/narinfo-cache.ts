/** What upstreams answered to questions for narinfos, kept for a while: Nix asks again on every build. */
import type { Host } from "../host.ts";
import { Lru } from "./lru.ts";
import type { UpstreamPeer } from "./upstream-peer.ts";

const FOUND_MS = 60 * 60_000;

/** A path that was absent may be there a moment later, when CI has published it. */
const ABSENT_MS = 60_000;

const MAX_BYTES = 16 * 1024 * 1024;

/** What an entry takes besides its text. */
const ENTRY_BYTES = 256;

/** A narinfo and where it came from. */
export interface FoundNarInfo {
  readonly text: string;
  readonly peer: UpstreamPeer;
  /** Whether clients take it, as far as the keys are known by which upstreams sign. */
  readonly isSigned: boolean;
}

interface Kept {
  readonly answer: FoundNarInfo | "absent";
  readonly until: number;
}

export class NarInfoCache {
  readonly #host: Pick<Host, "now">;
  readonly #kept = new Lru<Kept>(MAX_BYTES);

  constructor(host: Pick<Host, "now">) {
    this.#host = host;
  }

  /** An answer whose upstream is left alone does not count: its NAR could not be had. */
  get(storeHash: string): FoundNarInfo | "absent" | undefined {
    const kept = this.#kept.get(storeHash);
    if (kept === undefined) return undefined;
    if (kept.until <= this.#host.now()) {
      this.#kept.delete(storeHash);
      return undefined;
    }
    return kept.answer === "absent" || kept.answer.peer.isAsked ? kept.answer : undefined;
  }

  keep(storeHash: string, answer: FoundNarInfo | "absent"): void {
    const [ms, bytes] = answer === "absent" ? [ABSENT_MS, 0] : [FOUND_MS, answer.text.length];
    this.#kept.set(storeHash, { answer, until: this.#host.now() + ms }, bytes + ENTRY_BYTES);
  }
}
