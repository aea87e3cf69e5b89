/**
 * Publishing: a closure goes into the cache as one generation (STORAGE-PROTOCOL, "Publish").
 */
import { type EntryLine, formatLine } from "../cache/entry.ts";
import { blobsOf } from "../cache/manifests.ts";
import { type PublishRecord, sameLine } from "../cache/record.ts";
import { generationTime } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { formatPublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import { storeHashOf } from "../nar/store-path.ts";
import type { PathInfo } from "../nix/store.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Upstream } from "../upstream/client.ts";
import { type LeftOut, leaveOutDependents } from "./complete.ts";
import { newLine, restatedLine } from "./entries.ts";
import type { Compressor, Dump } from "./nar-file.ts";
import { planUnits, type Unit } from "./plan.ts";
import { type Selection, select } from "./select.ts";
import { type NarFile, type UploadProgress, uploadUnit } from "./upload.ts";

/** A store that fails this often in a row is not asked for the rest of the closure. */
const MAX_FAILURES_IN_A_ROW = 3;

/** How often a commit is tried again after uploading blobs that had vanished. */
const COMMIT_ATTEMPTS = 4;

/** An unchanged publish is left out only while the last one is younger than this (rule 7). */
const UNCHANGED_MS = 24 * 3_600_000;

export interface PublishContext extends ProtocolContext {
  readonly upstreams: readonly Upstream[];
  readonly dump: Dump;
  readonly key: SecretKey | undefined;
  readonly compressor: Compressor;
  readonly partBytes: number;
  /** Packs and large NARs in the making at once. */
  readonly unitsAtOnce: number;
  readonly progress: PublishProgress;
}

export interface PublishProgress extends UploadProgress {
  /** What there is to do, before the first byte moves. */
  planned(selection: Selection): void;
}

/** What the publish record says beside what follows from the paths. */
export type Origin = Pick<PublishRecord, "tool" | "source" | "roots" | "system" | "revision" | "run"> & {
  /** URL of the source repository. */
  readonly repository?: string;
};

export interface PublishResult {
  /** Null when nothing was committed: a dry run, an unchanged publish, nothing to publish. */
  readonly generation: string | null;
  /** Numbers of store paths. */
  readonly paths: {
    readonly closure: number;
    readonly upstream: number;
    readonly restated: number;
    readonly uploaded: number;
  };
  /** Bytes of NARs before compression, and of blobs sent. */
  readonly bytes: { readonly nar: number; readonly sent: number };
  readonly leftOut: readonly LeftOut[];
}

/**
 * @param closure references first
 * @throws when the cache cannot be read or written; then nothing was committed.
 */
export async function publish(
  closure: readonly PathInfo[],
  origin: Origin,
  context: PublishContext,
  options: { dryRun?: boolean } = {},
): Promise<PublishResult> {
  await refresh(context, { list: true });
  const selection = await select(closure, {
    known: (hash) => context.database.view.line(hash),
    upstreams: context.upstreams,
    signal: context.signal,
    warn: context.warn,
  });
  context.progress.planned(selection);
  const run = new PublishRun(closure, origin, context, selection);
  if (options.dryRun) return run.result(null, []);
  return run.run();
}

class PublishRun {
  readonly #closure: readonly PathInfo[];
  readonly #origin: Origin;
  readonly #context: PublishContext;
  readonly #selection: Selection;
  readonly #generation: GenerationWriter;
  readonly #now: number;
  /** By NAR hash. */
  readonly #files = new Map<string, NarFile>();
  readonly #failed = new Map<string, string>();
  readonly #restated: Map<string, EntryLine>;
  readonly #sent = new Map<Digest, number>();
  #failuresInARow = 0;

  constructor(closure: readonly PathInfo[], origin: Origin, context: PublishContext, selection: Selection) {
    this.#closure = closure;
    this.#origin = origin;
    this.#context = context;
    this.#selection = selection;
    this.#restated = new Map(selection.restated);
    this.#now = Math.floor(context.host.now() / 1000);
    this.#generation = new GenerationWriter(context, {
      source: origin.repository,
      revision: origin.revision,
    });
  }

  async run(): Promise<PublishResult> {
    await this.#upload(this.#selection.fresh);
    for (let attempt = 0; attempt < COMMIT_ATTEMPTS; attempt++) {
      const { lines, leftOut } = this.#lines();
      const record = this.#record(lines);
      if (lines.length === 0) return this.result(null, leftOut);
      if (this.#isUnchanged(record)) {
        // Whoever committed it may have died before the root covered it.
        if (this.#context.database.view.layers().some(({ position }) => position === null)) {
          await foldOrWarn(this.#context);
        }
        return this.result(null, leftOut);
      }
      const outcome = await this.#generation.commit(record, lines, blobsOf(lines));
      if ("committed" in outcome) {
        await foldOrWarn(this.#context);
        return this.result(outcome.committed, leftOut);
      }
      await this.#uploadAgain(new Set(outcome.missing), lines);
    }
    throw new NixcacheError(
      "protocol",
      `${this.#context.store.name}: blobs vanish as soon as they are uploaded`,
      {
        hint: "Look for a clean-up policy of the registry that deletes untagged or new content.",
      },
    );
  }

  result(generation: string | null, leftOut: readonly LeftOut[]): PublishResult {
    const failed = new Set(leftOut.map(({ path }) => path));
    const uploaded = this.#closure.filter(({ path }) => this.#isNew(path) && !failed.has(path));
    return {
      generation,
      paths: {
        closure: this.#closure.length,
        upstream: this.#selection.upstream.size,
        restated: this.#restated.size,
        uploaded: uploaded.length,
      },
      bytes: {
        nar: uploaded.reduce((sum, { narSize }) => sum + narSize, 0),
        sent: [...this.#sent.values()].reduce((sum, size) => sum + size, 0),
      },
      leftOut,
    };
  }

  #isNew(path: string): boolean {
    return !this.#restated.has(path) && !this.#selection.upstream.has(path);
  }

  async #upload(paths: readonly PathInfo[]): Promise<void> {
    const progress: UploadProgress = {
      compressed: (bytes) => this.#context.progress.compressed(bytes),
      stored: (blob, sent) => {
        if (sent) this.#sent.set(blob.digest, blob.size);
        this.#context.progress.stored(blob, sent);
      },
    };
    const uploadContext = { ...this.#context, generation: this.#generation, progress };
    await mapConcurrently(planUnits(paths), this.#context.unitsAtOnce, async (unit) => {
      try {
        const { files, failed } = await uploadUnit(unit, uploadContext);
        for (const [narHash, file] of files) this.#files.set(narHash, file);
        for (const [narHash, error] of failed) this.#failed.set(narHash, error.message);
        this.#failuresInARow = 0;
      } catch (error) {
        this.#storeFailed(unit, error);
      }
    });
  }

  /** A blob that cannot be uploaded costs its paths; a store that is not there ends the publish. */
  #storeFailed(unit: Unit, error: unknown): void {
    const passing =
      error instanceof NixcacheError && (error.code === "unreachable" || error.code === "protocol");
    if (!passing || ++this.#failuresInARow >= MAX_FAILURES_IN_A_ROW) throw error;
    const paths = unit.kind === "pack" ? unit.paths : [unit.path];
    for (const { narHash } of paths) this.#failed.set(narHash, error.message);
  }

  /** Blobs that the store had, or took, and has no longer: their paths are dumped and uploaded once more. */
  async #uploadAgain(missing: ReadonlySet<Digest>, lines: readonly EntryLine[]): Promise<void> {
    const affected = new Set(
      lines
        .filter((line) => blobsOf([line]).some(({ digest }) => missing.has(digest)))
        .map(({ storeHash }) => storeHash),
    );
    const paths = this.#closure.filter(({ path }) => affected.has(storeHashOf(path)));
    this.#context.warn(
      `${missing.size} blobs are gone from the cache; uploading ${paths.length} paths again`,
    );
    for (const { path, narHash } of paths) {
      this.#restated.delete(path);
      this.#files.delete(narHash);
    }
    await this.#upload(paths);
  }

  #lines(): { lines: EntryLine[]; leftOut: LeftOut[] } {
    const failed = new Map<string, string>();
    for (const { path, narHash } of this.#closure) {
      const reason = this.#failed.get(narHash);
      if (this.#isNew(path) && reason !== undefined) failed.set(path, reason);
    }
    const { complete, leftOut } = leaveOutDependents(this.#closure, failed);
    const lines: EntryLine[] = [];
    for (const info of complete) {
      const known = this.#restated.get(info.path);
      const file = this.#files.get(info.narHash);
      if (known) lines.push(restatedLine(known, this.#context.key, this.#now));
      else if (file && this.#isNew(info.path)) lines.push(newLine(info, file, this.#context.key, this.#now));
    }
    lines.sort((a, b) => (a.storeHash < b.storeHash ? -1 : 1));
    return { lines, leftOut };
  }

  #record(lines: readonly EntryLine[]): PublishRecord {
    const { host, key } = this.#context;
    const { repository: _, ...origin } = this.#origin;
    return {
      ...origin,
      time: new Date(host.now()).toISOString(),
      keys: key ? [formatPublicKey(publicKeyOf(key))] : [],
      content: digestOf(lines.map(formatLine).join("\n")),
      entries: lines.length,
    };
  }

  /** Rule 7: identical to the newest generation of its kind, and that one is young; else a revert would be lost. */
  #isUnchanged(record: PublishRecord): boolean {
    const newest = this.#context.database.view
      .generations()
      .filter((generation) => sameLine(generation.record, record))
      .at(-1);
    if (newest === undefined || newest.record.content !== record.content) return false;
    if (JSON.stringify(newest.record.roots) !== JSON.stringify(record.roots)) return false;
    return Math.abs(this.#context.host.now() - generationTime(newest.name)) < UNCHANGED_MS;
  }
}
