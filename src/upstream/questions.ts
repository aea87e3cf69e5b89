/**
 * Questions to upstreams of a run: which store paths they have. What is asked for may be thousands of paths, so an
 * upstream that fails is told of once, and soon not asked any more.
 *
 * "No" counts only of a cache whose nix-cache-info can be read: without it Nix takes none for a binary cache, and a wrong
 * address answers 404 to everything.
 */
import { messageOf, NixcacheError } from "../errors.ts";
import type { Upstream } from "./client.ts";
import { readCacheInfo } from "./read-cache-info.ts";

/** An upstream that fails this often is not asked again. */
const MAX_FAILURES = 3;

/** `unknown` when one that may have it cannot be asked. */
export type UpstreamAnswer = "has" | "absent" | "unknown";

export interface QuestionOptions {
  readonly signal?: AbortSignal | undefined;
  readonly warn: (message: string) => void;
  /** What follows from an upstream that cannot be asked, for the warning: `so nothing is left out for it`. */
  readonly consequence: string;
}

interface Asked {
  readonly upstream: Upstream;
  failures: number;
  told: boolean;
  /** Whether its nix-cache-info can be read. */
  proof?: Promise<boolean>;
}

export class UpstreamQuestions {
  readonly #asked: readonly Asked[];
  readonly #options: QuestionOptions;

  constructor(upstreams: readonly Upstream[], options: QuestionOptions) {
    this.#asked = upstreams.map((upstream) => ({ upstream, failures: 0, told: false }));
    this.#options = options;
  }

  /** Asks one after the other until one has it. */
  async ask(storeHash: string): Promise<UpstreamAnswer> {
    let answer: UpstreamAnswer = "absent";
    for (const asked of this.#asked) {
      const one = await this.#askOne(asked, storeHash);
      if (one === "has") return one;
      if (one === "unknown") answer = one;
    }
    return answer;
  }

  async #askOne(asked: Asked, storeHash: string): Promise<UpstreamAnswer> {
    if (asked.failures >= MAX_FAILURES) return "unknown";
    try {
      if ((await asked.upstream.narinfo(storeHash, this.#options.signal)) !== undefined) return "has";
    } catch (error) {
      asked.failures++;
      this.#failed(asked, error);
      return "unknown";
    }
    asked.proof ??= this.#prove(asked);
    return (await asked.proof) ? "absent" : "unknown";
  }

  async #prove(asked: Asked): Promise<boolean> {
    const { upstream } = asked;
    try {
      if ((await readCacheInfo(upstream, this.#options.signal)) !== undefined) return true;
      this.#tell(asked, `GET ${upstream.url}/nix-cache-info: got status 404`);
    } catch (error) {
      this.#failed(asked, error);
    }
    return false;
  }

  /** @throws what is no failure of the upstream */
  #failed(asked: Asked, error: unknown): void {
    if (!(error instanceof NixcacheError) || this.#options.signal?.aborted) throw error;
    this.#tell(asked, messageOf(error));
  }

  #tell(asked: Asked, reason: string): void {
    if (asked.told) return;
    asked.told = true;
    const { warn, consequence } = this.#options;
    warn(`upstream ${asked.upstream.url} cannot be asked, ${consequence}: ${reason}`);
  }
}
