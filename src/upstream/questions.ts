/**
 * Questions to upstreams of a run: which store paths they have. What is asked for may be thousands of paths, so an
 * upstream that fails is told of once, and soon not asked any more.
 *
 * "Yes" counts only of what an upstream says of the path that is meant, of the same content where that is known, and with
 * a signature by its key where that is known: anybody can claim to have everything.
 *
 * "No" counts only of a cache whose nix-cache-info can be read: without it Nix takes none for a binary cache, and a wrong
 * address answers 404 to everything.
 */
import { messageOf, NixcacheError } from "../errors.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { type NarInfo, parseNarInfo } from "../nar/narinfo.ts";
import { fingerprint, type SignedFields, verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";
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

/** What an upstream must have for its "yes" to count. */
export interface Wanted {
  /** The whole store path, where more of it is known than its hash. */
  readonly storePath?: string | undefined;
  /** The build, where there is one here. */
  readonly build?: SignedFields | undefined;
}

interface Asked {
  readonly upstream: Upstream;
  failures: number;
  told: boolean;
  /** Whether it was told that what it says does not count. */
  toldWrong: boolean;
  /** Whether its nix-cache-info can be read. */
  proof?: Promise<boolean>;
}

export class UpstreamQuestions {
  readonly #asked: readonly Asked[];
  readonly #options: QuestionOptions;

  constructor(upstreams: readonly Upstream[], options: QuestionOptions) {
    this.#asked = upstreams.map((upstream) => ({
      ...{ upstream, failures: 0 },
      ...{ told: false, toldWrong: false },
    }));
    this.#options = options;
  }

  /** Asks one after the other until one has it. */
  async ask(storeHash: string, wanted: Wanted = {}): Promise<UpstreamAnswer> {
    let answer: UpstreamAnswer = "absent";
    for (const asked of this.#asked) {
      const one = await this.#askOne(asked, storeHash, wanted);
      if (one === "has") return one;
      if (one === "unknown") answer = one;
    }
    return answer;
  }

  async #askOne(asked: Asked, storeHash: string, wanted: Wanted): Promise<UpstreamAnswer> {
    if (asked.failures >= MAX_FAILURES) return "unknown";
    try {
      const text = await asked.upstream.narinfo(storeHash, this.#options.signal);
      if (text !== undefined) {
        const info = parseNarInfo(text);
        const reason = whyNot(info, wanted, asked.upstream.keys ?? []);
        if (reason === undefined) return "has";
        this.#tellWrong(asked, info.storePath, reason);
        return "absent";
      }
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

  #tellWrong(asked: Asked, storePath: string, reason: string): void {
    if (asked.toldWrong) return;
    asked.toldWrong = true;
    this.#options.warn(`upstream ${asked.upstream.url}: ${storePath} does not count as there: ${reason}`);
  }

  #tell(asked: Asked, reason: string): void {
    if (asked.told) return;
    asked.told = true;
    const { warn, consequence } = this.#options;
    warn(`upstream ${asked.upstream.url} cannot be asked, ${consequence}: ${reason}`);
  }
}

/** Why a narinfo says nothing of what is wanted, as the end of a sentence; undefined when it does. */
function whyNot(info: NarInfo, { storePath, build }: Wanted, keys: readonly PublicKey[]): string | undefined {
  const path = build?.storePath ?? storePath;
  if (path !== undefined && path !== info.storePath) return `expected ${path}`;
  if (build !== undefined && fingerprint(build) !== fingerprint(info))
    return "its content or its references differ from what is here";
  if (keys.length === 0 || verifyNarInfo(info, keys) || isContentAddressed(info)) return undefined;
  return `it is not signed by ${keys.map(({ name }) => name).join(" or ")}`;
}
