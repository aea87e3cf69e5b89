/**
 * Asking a registry for a blob from some byte on. A range is a wish: it may be granted, be ignored, or be answered in
 * some odd way, and then the blob is asked for whole, whose first bytes are thrown away.
 */
import { NixcacheError } from "../errors.ts";
import type { Digest } from "./digest.ts";
import type { Opened } from "./download.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import { throwIfAborted } from "./network.ts";
import type { RegistryContext } from "./registry-context.ts";
import { isFault, lastAnswer, type RetryPolicy, withAttempts, withRetry } from "./retry.ts";
import { StorageLinks } from "./storage-links.ts";
import { type Answer, isPage, lengthOf, unexpected } from "./transport.ts";

/** So many ranges in a row that are answered in some odd way are no accident on the way. */
const ODD_IN_A_ROW = 3;

/** How long no range is asked for then, in milliseconds. */
const NO_RANGES_MS = 10 * 60_000;

/** An answer, and the size of the whole blob where it says that. */
export type Found = Opened & { readonly total: number | undefined };

export class BlobRequests {
  readonly #context: RegistryContext;
  readonly #links: StorageLinks;
  #ignoresRange: boolean;
  #oddInARow = 0;
  #noRangesUntil = Number.NEGATIVE_INFINITY;

  constructor(context: RegistryContext) {
    this.#context = context;
    this.#links = new StorageLinks(context.transport.origin);
    this.#ignoresRange = context.ignoresRange;
  }

  /** Whether a range costs as much as the whole blob, as far as it was seen. */
  get ignoresRange(): boolean {
    return this.#ignoresRange || this.#withoutRanges();
  }

  #withoutRanges(): boolean {
    return this.#context.network.now() < this.#noRangesUntil;
  }

  /**
   * Asks for the bytes from `from` on, up to `end`, or the end of the blob. One try.
   * @returns undefined when the blob is absent
   */
  async from(
    digest: Digest,
    from: number,
    end: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Found | undefined> {
    const whole = () => this.#whole(digest, from, end, signal);
    if ((from === 0 && end === undefined) || this.#withoutRanges()) return whole();
    const found = await this.#range(digest, from, end, signal);
    return found === "odd" ? this.#insteadOfRange(whole) : found;
  }

  /** As `from`, with the tries of a policy. A registry may fail at ranges alone, or its storage deny them, each time. */
  async patiently(
    policy: RetryPolicy,
    digest: Digest,
    from: number,
    end: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Found | undefined> {
    const { network } = this.#context;
    try {
      return await withRetry(policy, network, () => this.from(digest, from, end, signal), signal);
    } catch (error) {
      const last = lastAnswer(error);
      const isDenied = last?.afterMs === undefined && (last?.status === 401 || last?.status === 403);
      const isOdd = isFault(last?.status) || isDenied;
      if (end === undefined || this.#withoutRanges() || !isOdd) throw error;
      const whole = () => this.#whole(digest, from, end, signal);
      return this.#insteadOfRange(() => withRetry(withAttempts(policy, 1), network, whole, signal));
    }
  }

  /** What broke may have broken because the link to the storage host is over. */
  forgetLink(digest: Digest): void {
    this.#links.forget(digest);
  }

  /** `"odd"` for an answer that is none to a range. */
  async #range(
    digest: Digest,
    from: number,
    end: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Found | "odd" | undefined> {
    const range = `bytes=${from}-${end === undefined ? "" : end - 1}`;
    let answer: Answer;
    try {
      answer = await this.#get(digest, signal, { range });
    } catch (error) {
      throwIfAborted(signal, this.#context.network.signal);
      if (error instanceof NixcacheError && error.code !== "interrupted") return "odd";
      throw error;
    }
    if (answer.kind === "absent") return undefined;
    const { body, close } = answer;
    const got = answer.status === 206 ? contentRange(answer) : undefined;
    if (got?.first === from) {
      this.#ignoresRange = false;
      this.#oddInARow = 0;
      return { body, close, total: got.total, skip: 0, exact: true };
    }
    const total = lengthOf(answer);
    const mayBeWhole = answer.status === 200 && !isPage(answer) && (end ?? 0) <= (total ?? end ?? 0);
    if (!mayBeWhole) {
      close();
      return "odd";
    }
    if (from > 0 || (end !== undefined && end !== total)) this.#ignoresRange = true;
    return { body, close, total, skip: from, exact: end === undefined || end === total };
  }

  async #whole(
    digest: Digest,
    from: number,
    end: number | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Found | undefined> {
    const answer = await this.#get(digest, signal, {});
    if (answer.kind === "absent") return undefined;
    const { body, close } = answer;
    if (answer.status !== 200) {
      close();
      throw unexpected(describeExchange(this.#exchange(digest)), answer);
    }
    const total = lengthOf(answer);
    return { body, close, total, skip: from, exact: end === undefined || end === total };
  }

  async #insteadOfRange(ask: () => Promise<Found | undefined>): Promise<Found | undefined> {
    const found = await ask();
    if (found !== undefined && ++this.#oddInARow >= ODD_IN_A_ROW)
      this.#noRangesUntil = this.#context.network.now() + NO_RANGES_MS;
    return found;
  }

  #exchange(digest: Digest): Exchange {
    return { method: "GET", url: this.#context.at(`blobs/${digest}`), access: "pull" };
  }

  async #get(
    digest: Digest,
    signal: AbortSignal | undefined,
    headers: Record<string, string>,
  ): Promise<Answer> {
    const exchange: Exchange = { ...this.#exchange(digest), signal, headers };
    const answer = (await this.#atLink(digest, exchange)) ?? (await this.#context.transport.send(exchange));
    if (answer.kind === "ok") this.#links.remember(digest, answer.url);
    return answer;
  }

  /** The answer at the link; undefined where there is none that is good. Whether the blob is there is not its to say. */
  async #atLink(digest: Digest, exchange: Exchange): Promise<Answer | undefined> {
    const url = this.#links.get(digest);
    if (url === undefined) return undefined;
    try {
      const answer = await this.#context.transport.send({ ...exchange, url });
      if (answer.status === 200 || answer.status === 206) return answer;
      answer.close();
    } catch {
      throwIfAborted(exchange.signal, this.#context.network.signal);
    }
    this.#links.forget(digest);
    return undefined;
  }
}

/** `bytes 0-0/1234`. The total is undefined where the server wrote `*`. RFC 9110, 14.4 */
export function contentRange({
  headers,
}: Pick<Answer, "headers">): { first: number; last: number; total: number | undefined } | undefined {
  const match = /^bytes ([0-9]{1,15})-([0-9]{1,15})\/([0-9]{1,15}|\*)$/i.exec(
    headers.get("content-range")?.trim() ?? "",
  );
  if (match === null) return undefined;
  const [, first, last, total] = match;
  return { first: Number(first), last: Number(last), total: total === "*" ? undefined : Number(total) };
}
