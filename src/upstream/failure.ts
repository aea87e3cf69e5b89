/** An upstream that did not answer, or with something that is no answer. */
import { NixcacheError } from "../errors.ts";

export interface FailureOptions {
  /** Of the answer; undefined when none came, or when it broke off. */
  readonly status?: number | undefined;
  /** Whether it was waited for until a time-out. */
  readonly timedOut?: boolean;
  /** The Retry-After header of the answer. */
  readonly retryAfter?: string | null;
  /** What to do next; there is one only where asking again mends nothing. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

export class UpstreamFailure extends NixcacheError {
  readonly status: number | undefined;
  readonly timedOut: boolean;
  readonly retryAfter: string | null;

  constructor(message: string, { status, timedOut, retryAfter, hint, cause }: FailureOptions = {}) {
    super("unreachable", message, {
      ...(cause === undefined ? {} : { cause }),
      ...(hint === undefined ? {} : { hint }),
    });
    this.status = status;
    this.timedOut = timedOut ?? false;
    this.retryAfter = retryAfter ?? null;
  }
}

/** Of something that fails, and was told when it began to: who meets it later has nothing to tell. */
export class LeftAlone extends NixcacheError {
  constructor(message: string) {
    super("unreachable", message);
  }
}
