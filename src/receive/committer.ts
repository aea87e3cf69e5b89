/**
 * Commits the journal in the background: a batch closes when no upload came for a while, or when it is large or old
 * enough. What cannot be committed stays in the journal, is answered from it, and is tried again.
 */
import { formatLine } from "../cache/entry.ts";
import { blobsOf } from "../cache/manifests.ts";
import type { PublishRecord } from "../cache/record.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { cacheTime } from "../protocol/clock.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import { refresh } from "../protocol/refresh.ts";
import { type Elsewhere, linesOf, narParts, piecesOf, planBatch, rootsOf } from "./batch.ts";
import type { Journal, JournalFile } from "./journal.ts";
import { type PieceContext, storePieces } from "./pieces.ts";

/** Without an upload for so long, the client is taken to be done. */
const QUIET_MS = 5_000;

/** The oldest upload waits no longer than this, however many more come. */
const MAX_AGE_MS = 120_000;

const MAX_PATHS = 1_000;
const MAX_BYTES = 4 * 1024 ** 3;

/** Between two tries of a commit that failed: doubles from the first to the last. */
const RETRY_MS = { first: 5_000, last: 10 * 60_000 };

/** How often a batch is put together anew because blobs of it had gone. */
const ATTEMPTS = 4;

/** A tag may be missing from the list for a while after its push. */
const UNSEEN_MS = 30_000;

const IDLE_MS = 3_600_000;

/** Names in one message. */
const MAX_NAMES = 10;

export interface CommitContext extends PieceContext {
  readonly journal: Journal;
  readonly elsewhere: Elsewhere;
  /** What the publish record says beside what follows from the batch. */
  readonly origin: Pick<PublishRecord, "tool" | "source" | "keys" | "revision" | "run"> & {
    /** URL of the source repository. */
    readonly repository?: string;
  };
  /** Told what a person should know of commits, good or bad. */
  readonly log: { info(message: string): void; warn(message: string): void };
}

export interface CommitStatus {
  /** When the last generation was committed, in milliseconds since 1970. */
  readonly lastCommit: number | undefined;
  /** Why the last commit failed, or some paths are not in it. */
  readonly lastError: string | undefined;
}

export class Committer {
  readonly #context: CommitContext;
  readonly #host: Host;
  /** Rows of generations that the local index does not show yet. */
  readonly #unseen = new Map<string, readonly JournalFile[]>();
  #wake = new AbortController();
  #closing = false;
  #uploads = 0;
  #firstAt: number | undefined;
  #lastAt = 0;
  #notBefore = 0;
  #wait = 0;
  #lastCommit: number | undefined;
  #lastError: string | undefined;
  /** Whether the wait is for paths that had to be left out, not for the store: what comes next need not wait. */
  #leftOut = false;

  constructor(context: CommitContext) {
    this.#context = context;
    this.#host = context.host;
  }

  status(): CommitStatus {
    return { lastCommit: this.#lastCommit, lastError: this.#lastError };
  }

  /** Runs an upload, and counts it. */
  async during<T>(upload: () => Promise<T>): Promise<T> {
    this.#uploads++;
    try {
      return await upload();
    } finally {
      this.#uploads--;
      this.#lastAt = this.#host.now();
      this.#wake.abort();
    }
  }

  /** Says that the journal has something new. */
  added(): void {
    this.#firstAt ??= this.#host.now();
    if (this.#leftOut) this.#notBefore = 0;
  }

  /** Commits batches until the signal of the context, or until `close` has been called and all is done. */
  async run(): Promise<void> {
    // What an earlier process left.
    if (this.#context.journal.totals().bytes > 0) this.#firstAt ??= this.#host.now() - MAX_AGE_MS;
    const { signal } = this.#context;
    // Whatever is due: what stays is in the journal.
    while (!signal?.aborted) {
      const wait = this.#closesIn();
      if (wait > 0) {
        if (this.#closing) return;
        this.#wake = new AbortController();
        const wake = signal ? AbortSignal.any([signal, this.#wake.signal]) : this.#wake.signal;
        await this.#host.sleep(wait, wake).catch(() => {});
      } else await this.#commit();
    }
  }

  /** Commits what there is, once, without waiting; `run` ends then. What fails stays in the journal. */
  close(): void {
    this.#closing = true;
    this.#wait = 0;
    this.#wake.abort();
  }

  /** Milliseconds until the batch closes; 0 or less: now. */
  #closesIn(): number {
    const now = this.#host.now();
    if (this.#firstAt === undefined) {
      if (this.#unseen.size > 0) return this.#closing ? IDLE_MS : this.#notBefore - now;
      return IDLE_MS;
    }
    if (this.#closing) return this.#wait > 0 ? IDLE_MS : 0;
    const { paths, bytes } = this.#context.journal.totals();
    const full = paths >= MAX_PATHS || bytes >= MAX_BYTES;
    const quiet = this.#uploads > 0 ? Number.POSITIVE_INFINITY : this.#lastAt + QUIET_MS;
    const due = full ? 0 : Math.min(quiet, this.#firstAt + MAX_AGE_MS);
    return Math.max(due, this.#notBefore) - now;
  }

  async #commit(): Promise<void> {
    const firstAt = this.#firstAt;
    this.#firstAt = undefined;
    try {
      const waiting = await this.#commitBatch();
      this.#leftOut = waiting !== undefined;
      this.#lastError = waiting;
      if (waiting !== undefined) this.#waitLonger(firstAt);
      else {
        this.#wait = 0;
        this.#notBefore = this.#unseen.size > 0 ? this.#host.now() + UNSEEN_MS : 0;
        if (this.#context.journal.totals().paths === 0) this.#context.journal.sweep();
      }
    } catch (error) {
      if (this.#context.signal?.aborted) return;
      const message = messageOf(error);
      const { warn } = this.#context.log;
      if (message !== this.#lastError)
        warn(`uploads are not committed yet and stay in the journal: ${message}`);
      this.#lastError = message;
      this.#leftOut = false;
      this.#waitLonger(firstAt);
    }
  }

  #waitLonger(firstAt: number | undefined): void {
    const now = this.#host.now();
    this.#firstAt ??= firstAt ?? now;
    this.#wait = Math.min(RETRY_MS.last, Math.max(RETRY_MS.first, this.#wait * 2));
    this.#notBefore = now + this.#wait;
  }

  /** Answers which paths have to wait, and why. @throws when the store fails */
  async #commitBatch(): Promise<string | undefined> {
    const { journal, database, origin, host, elsewhere, log } = this.#context;
    await refresh(this.#context, { list: true });
    this.#forgetSeen();
    if (this.#unseen.size > 0) return undefined;
    const lost = new Set<Digest>();
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const batch = await planBatch(journal, database.view, elsewhere, lost);
      journal.remove(batch.done);
      if (batch.orphans.length > 0) this.#drop(batch.orphans, "their NARs are in no cache any more");
      const waiting = this.#report(batch.waiting);
      if (batch.entries.length === 0) return waiting;
      const { repository, ...rest } = origin;
      const generation = new GenerationWriter(this.#context, {
        source: repository,
        revision: origin.revision,
      });
      const { places, spoilt } = await storePieces(piecesOf(batch, journal), this.#context, generation);
      if (spoilt.size > 0) {
        this.#dropSpoilt(spoilt);
        continue;
      }
      const now = cacheTime(this.#context);
      const lines = linesOf(batch, places, Math.floor(now / 1000));
      const record: PublishRecord = {
        ...rest,
        roots: rootsOf(batch),
        time: new Date(now).toISOString(),
        content: digestOf(lines.map(formatLine).join("\n")),
        entries: lines.length,
      };
      const outcome = await generation.commit(record, lines, blobsOf(lines));
      if ("committed" in outcome) {
        this.#unseen.set(
          outcome.committed,
          batch.entries.flatMap(({ files }) => files),
        );
        this.#lastCommit = host.now();
        log.info(`committed ${batch.entries.length} uploaded paths`);
        if (batch.more) this.#firstAt ??= host.now();
        await foldOrWarn(this.#context);
        this.#forgetSeen();
        return waiting;
      }
      for (const digest of outcome.missing) lost.add(digest);
    }
    throw new NixcacheError(
      "protocol",
      `${this.#context.store.name}: blobs vanish as soon as they are uploaded`,
      {
        hint: "Look for a clean-up policy of the registry that deletes untagged or new content.",
      },
    );
  }

  /** What the disk has changed, and what needs it. */
  #dropSpoilt(spoilt: ReadonlySet<Digest>): void {
    const { journal, database } = this.#context;
    const files = [...spoilt].flatMap((digest) => journal.ofDigest(digest));
    const users = files.flatMap(({ kind, nar }) => {
      const isNeeded = kind === "nar" && nar !== null && narParts(database.view, nar) === undefined;
      return isNeeded ? journal.narinfosOf(nar) : [];
    });
    this.#drop([...users, ...files], "the disk has changed bytes of theirs; check it");
  }

  /** What cannot be committed any more is not answered for any more either, so that it can be sent again. */
  #drop(files: readonly JournalFile[], why: string): void {
    this.#context.journal.remove(files);
    const names = files.map(({ text, path, kind }) =>
      kind === "narinfo" && text !== null ? parseNarInfo(text, path).storePath : path,
    );
    const shown = names.slice(0, MAX_NAMES).join(", ") + (names.length > MAX_NAMES ? ", …" : "");
    this.#context.log.warn(
      `${names.length} uploads were taken out of the journal, as ${why}: ${shown}; upload these paths again`,
    );
  }

  /** Takes out of the journal what the local index shows: from there it is answered from now on. */
  #forgetSeen(): void {
    if (this.#unseen.size === 0) return;
    const { journal, database } = this.#context;
    for (const { name } of database.view.generations()) {
      const files = this.#unseen.get(name);
      if (files === undefined) continue;
      journal.remove(files.filter(({ kind }) => kind !== "nar"));
      this.#unseen.delete(name);
    }
  }

  #report(waiting: readonly { readonly path: string; readonly reason: string }[]): string | undefined {
    const [first] = waiting;
    if (first === undefined) return undefined;
    const message = `${waiting.length} uploaded paths wait; ${first.path}: ${first.reason}`;
    if (message !== this.#lastError) this.#context.log.warn(message);
    return message;
  }
}
