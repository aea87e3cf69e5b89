/**
 * What is malformed although every byte of it is what its digest says: somebody wrote it so, and reading it again
 * changes nothing. Whoever may write to a cache can put such a generation there. It has nothing to give, so readers pass
 * over it, and it closes the cache to nobody; `verify` tells of it and `--repair` ends it.
 */
import { LaterFormat } from "../cache/index-layer.ts";
import { NixcacheError } from "../errors.ts";

export class Malformed extends NixcacheError {
  /** Whether a later version of nixcache may read it. */
  readonly isLater: boolean;

  constructor(error: NixcacheError) {
    const isLater = error instanceof LaterFormat;
    const hint = isLater ? error.hint : "Run nixcache verify --repair, which ends what cannot be read.";
    super("corrupt", error.message, { cause: error, ...(hint !== undefined && { hint }) });
    this.isLater = isLater;
  }
}

/** Runs what makes sense of bytes that were found right. @throws Malformed for what is `corrupt` all the same */
export function sense<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw malformed(error);
  }
}

/** The error to throw for one that was thrown while bytes were made sense of that are right. */
export function malformed(error: unknown): unknown {
  const isText = error instanceof NixcacheError && error.code === "corrupt";
  return isText && !(error instanceof Malformed) ? new Malformed(error) : error;
}
