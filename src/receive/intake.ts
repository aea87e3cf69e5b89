/** What each kind of upload needs to be taken in, and the room that there is for it. */
import type { IndexReader } from "../cache/index-reader.ts";
import type { SecretKey } from "../nar/signing-key.ts";
import type { Elsewhere } from "./batch.ts";
import type { Journal } from "./journal.ts";
import { Refusal } from "./refusal.ts";

/** Paths in the journal at most, whatever their size: a look at it must stay quick. */
const MAX_JOURNAL_PATHS = 100_000;

export interface IntakeOptions {
  readonly journal: Journal;
  /** Of the cache that is written to, as of now. */
  readonly index: () => IndexReader;
  readonly elsewhere: Elsewhere;
  readonly key: SecretKey | undefined;
  /** Bytes that the journal takes at most. */
  readonly journalBytes: number;
  /** Says that the journal has something new to commit. */
  readonly added: () => void;
}

export class Intake {
  readonly journal: Journal;
  readonly index: () => IndexReader;
  readonly elsewhere: Elsewhere;
  readonly key: SecretKey | undefined;
  readonly added: () => void;
  readonly #journalBytes: number;
  /** Bytes of uploads on their way into the journal. */
  #underWay = 0;

  constructor({ journal, index, elsewhere, key, added, journalBytes }: IntakeOptions) {
    this.journal = journal;
    this.index = index;
    this.elsewhere = elsewhere;
    this.key = key;
    this.added = added;
    this.#journalBytes = journalBytes;
  }

  /** Whether a store path is in the journal or in the index. */
  has(storeHash: string): boolean {
    return this.narinfo(storeHash) !== undefined;
  }

  /** What is answered for a store path now. */
  narinfo(storeHash: string): string | undefined {
    return this.journal.view.narinfo(storeHash) ?? this.index().narinfo(storeHash);
  }

  /** Takes an upload of `length` bytes, if the journal has room for it. @throws Refusal (413) */
  async within(length: number, upload: () => Promise<void> | void): Promise<void> {
    const { paths, bytes } = this.journal.totals();
    if (bytes + this.#underWay + length > this.#journalBytes || paths >= MAX_JOURNAL_PATHS) {
      throw new Refusal(
        413,
        `the journal has no room for ${length} bytes more: ${bytes} of ${this.#journalBytes} bytes wait to be committed`,
      );
    }
    this.#underWay += length;
    try {
      await upload();
    } finally {
      this.#underWay -= length;
    }
  }
}
