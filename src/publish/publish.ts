/**
 * Publishing: a closure goes into the cache as one generation (STORAGE-PROTOCOL, "Publish").
 */
import { isAttachedPath } from "../cache/attachment.ts";
import { Standing, standingOf } from "../cache/builds.ts";
import { type EntryLine, formatLine } from "../cache/entry.ts";
import type { Generation } from "../cache/index-layer.ts";
import { blobsOf } from "../cache/manifests.ts";
import { type PublishRecord, sameLine } from "../cache/record.ts";
import { generationTime } from "../cache/tags.ts";
import { bothConcurrently, mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Realisation } from "../nar/realisation.ts";
import { formatPublicKey, type PublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import { storeHashOf } from "../nar/store-path.ts";
import type { PathInfo } from "../nix/store.ts";
import { type Digest, digestOf } from "../oci/digest.ts";
import { type Adoption, adoptV1 } from "../protocol/adopt.ts";
import { cacheTime, warnOfClocks } from "../protocol/clock.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { foldOrWarn } from "../protocol/fold.ts";
import { GenerationWriter } from "../protocol/generation.ts";
import { refresh } from "../protocol/refresh.ts";
import { signWhatWasBefore } from "../protocol/sign.ts";
import { isStrict } from "../protocol/strictness.ts";
import type { Upstream } from "../upstream/client.ts";
import type { LogsByNar } from "./beside.ts";
import { type LeftOut, leaveOutDependents } from "./complete.ts";
import { baseName, countSignedNow, logPath, newLine, restatedLine } from "./entries.ts";
import { keptLines, keptReasons } from "./kept.ts";
import { type NewPath, RunMemory } from "./memory.ts";
import type { Compressor, Dump } from "./nar-file.ts";
import { planUnits, type Unit } from "./plan.ts";
import { type Selection, select } from "./select.ts";
import { type UploadProgress, uploadUnit } from "./upload.ts";

/** A store that fails this often in a row is not asked for the rest of the closure. */
const MAX_FAILURES_IN_A_ROW = 3;

/** How often a commit is tried again after uploading blobs that had vanished. */
const COMMIT_ATTEMPTS = 4;

/** An unchanged publish is left out only while the last one is younger than this (rule 7). */
const UNCHANGED_MS = 24 * 3_600_000;

export interface PublishContext extends ProtocolContext {
  readonly upstreams: readonly Upstream[];
  /** Keys of upstreams: what one of these has signed is upstream. Default: none. */
  readonly upstreamKeys?: readonly PublicKey[];
  readonly dump: Dump;
  /** The build log of a derivation, by its store path. Default: there is none. */
  readonly buildLog?: (derivation: string) => Uint8Array | undefined;
  /** By store path. */
  readonly realisations?: ReadonlyMap<string, readonly Realisation[]>;
  readonly key: SecretKey | undefined;
  /**
   * The cache with the generations that do not count: a build that differs from one that somebody else has signed is
   * left out. Default: they are not looked at.
   */
  readonly openEverything?: (() => Disposable & { readonly protocol: ProtocolContext }) | undefined;
  /** Publish builds that differ from a signed one in the cache, in its place. Default: those stay. */
  readonly replaceSigned?: boolean;
  readonly compressor: Compressor;
  readonly partBytes: number;
  /** Packs and large NARs in the making at once. */
  readonly unitsAtOnce: number;
  readonly progress: PublishProgress;
  /** Of the publishes of this run before this one. Default: there were none. */
  readonly memory?: RunMemory;
}

export interface PublishOptions {
  readonly dryRun?: boolean;
  /** Fires when no more may be uploaded: what is uploaded by then is committed, as a partial generation. */
  readonly until?: AbortSignal;
}

export interface PublishProgress extends UploadProgress {
  /** What there is to do, before the first byte moves. */
  planned(selection: Selection): void;
}

/** What the publish record says beside what follows from the paths. */
export type Origin = Pick<
  PublishRecord,
  "tool" | "source" | "roots" | "system" | "selection" | "branch" | "revision" | "run" | "partial"
> & {
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
  /** What was uploaded, by earlier publishes of the same run too. */
  readonly newPaths: readonly NewPath[];
  readonly leftOut: readonly LeftOut[];
  /** Paths that the cache had unsigned, and has signed since: clients may remember them as they were. */
  readonly signedNow?: number;
  /** The cache of nixcache-oci that was here before, where this publish was the first. */
  readonly adopted?: Adoption;
}

/**
 * @param closure references first
 * @throws when the cache cannot be read or written; then nothing was committed.
 */
export async function publish(
  closure: readonly PathInfo[],
  origin: Origin,
  context: PublishContext,
  options: PublishOptions = {},
): Promise<PublishResult> {
  await refresh(context, { list: true });
  warnOfClocks(context);
  if (!options.dryRun) await signWhatWasBefore(context);
  const adopted = options.dryRun ? undefined : await adoptV1(context, context.upstreams);
  const selection = await selectFrom(closure, context);
  const run = new PublishRun(closure, origin, context, selection, options.until);
  context.progress.planned({ ...selection, fresh: run.toUpload() });
  if (options.dryRun) return run.result(null, run.keptOut());
  return { ...(await run.run()), ...(adopted && { adopted }) };
}

async function selectFrom(closure: readonly PathInfo[], context: PublishContext): Promise<Selection> {
  const { view } = context.database;
  using everything = view.unsigned().length === 0 ? undefined : context.openEverything?.();
  if (everything !== undefined) await refresh(everything.protocol, { list: true });
  return await select(closure, {
    known: (hash) => context.database.view.line(hash),
    uncounted: everything && ((hash) => everything.protocol.database.view.line(hash)),
    isSigned: (line) => standingOf(line, context.database.view.keys()) > Standing.Unsigned,
    replaceSigned: context.replaceSigned,
    upstreams: context.upstreams,
    ...(context.upstreamKeys && { upstreamKeys: context.upstreamKeys }),
    signal: context.signal,
    warn: context.warn,
  });
}

class PublishRun {
  readonly #closure: readonly PathInfo[];
  readonly #origin: Origin;
  readonly #context: PublishContext;
  readonly #selection: Selection;
  readonly #generation: GenerationWriter;
  readonly #until: AbortSignal | undefined;
  readonly #now: number;
  readonly #memory: RunMemory;
  readonly #failed = new Map<string, string>();
  readonly #restated: Map<string, EntryLine>;
  /** Paths that the cache has signed in another build, with its line. */
  readonly #kept: Map<string, EntryLine>;
  /** Behind which NAR, by its hash, the log of a derivation goes: several outputs come from one. */
  readonly #logs = new Map<string, string>();
  #failuresInARow = 0;
  /** Whether what the cache has in the place of what is left out for it is whole. */
  #canKeep = true;
  /** Whether some paths are left out for the time alone. */
  #stopped = false;

  constructor(
    closure: readonly PathInfo[],
    origin: Origin,
    context: PublishContext,
    selection: Selection,
    until: AbortSignal | undefined,
  ) {
    this.#closure = closure;
    this.#origin = origin;
    this.#context = context;
    this.#selection = selection;
    this.#until = until;
    this.#restated = new Map(selection.restated);
    this.#kept = new Map(selection.kept);
    this.#memory = context.memory ?? new RunMemory();
    for (const { path, narHash } of closure) if (this.#restated.has(path)) this.#memory.files.delete(narHash);
    this.#now = Math.floor(cacheTime(context) / 1000);
    const links = { source: origin.repository, revision: origin.revision };
    this.#generation = new GenerationWriter(context, links, this.#newestOf(origin)?.name);
  }

  /** What is new and not uploaded yet. */
  toUpload(): PathInfo[] {
    const out = new Set(this.keptOut().map(({ path }) => path));
    return this.#closure.filter(
      ({ path, narHash }) => this.#isNew(path) && !out.has(path) && !this.#memory.files.has(narHash),
    );
  }

  /** What is left out for what the cache has signed. */
  keptOut(): LeftOut[] {
    return leaveOutDependents(this.#closure, keptReasons(this.#kept)).leftOut;
  }

  async run(): Promise<PublishResult> {
    const fresh = this.toUpload();
    // What the registry is like is found out meanwhile, since the commit wants to know.
    if (fresh.length > 0) {
      await bothConcurrently(
        this.#context.concurrency,
        () => this.#upload(fresh),
        () => isStrict(this.#context),
      );
    }
    for (let attempt = 0; attempt < COMMIT_ATTEMPTS; attempt++) {
      const { lines, leftOut } = this.#lines();
      const record = this.#record(lines);
      if (lines.length === 0 || (record.partial && !this.#hasNews())) return this.result(null, leftOut);
      if (this.#isUnchanged(record)) {
        // Whoever committed it may have died before the root covered it.
        if (this.#context.database.view.uncovered().length > 0) await foldOrWarn(this.#context);
        return this.result(null, leftOut);
      }
      const outcome = await this.#generation.commit(record, lines, blobsOf(lines));
      if ("committed" in outcome) {
        await foldOrWarn(this.#context);
        const signedNow = countSignedNow([...this.#restated.values(), ...this.#selection.uncounted], lines);
        const result = { ...this.result(outcome.committed, leftOut), ...(signedNow > 0 && { signedNow }) };
        for (const path of result.newPaths) this.#memory.committed.set(path.path, path);
        return result;
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
    const { files, committed, sent } = this.#memory;
    const uploaded = this.#closure.filter(
      ({ path }) => (this.#isNew(path) || committed.has(path)) && !failed.has(path),
    );
    return {
      generation,
      paths: {
        closure: this.#closure.length,
        upstream: this.#selection.upstream.size,
        restated: this.#restated.keys().reduce((count, path) => count + (committed.has(path) ? 0 : 1), 0),
        uploaded: uploaded.length,
      },
      bytes: {
        nar: uploaded.reduce((sum, { narSize }) => sum + narSize, 0),
        sent: sent.values().reduce((sum, size) => sum + size, 0),
      },
      newPaths: uploaded.map(({ path, narHash, narSize }) => {
        return committed.get(path) ?? { path, narSize, fileSize: files.get(narHash)?.fileSize ?? null };
      }),
      leftOut,
    };
  }

  #isNew(path: string): boolean {
    return !this.#restated.has(path) && !this.#selection.upstream.has(path) && !this.#kept.has(path);
  }

  async #upload(paths: readonly PathInfo[]): Promise<void> {
    const progress: UploadProgress = {
      compressed: (bytes) => this.#context.progress.compressed(bytes),
      stored: (blob, sent) => {
        if (sent) this.#memory.sent.set(blob.digest, blob.size);
        this.#context.progress.stored(blob, sent);
      },
    };
    const { signal } = this.#context;
    const until = this.#until;
    const uploadContext = {
      ...this.#context,
      signal: until && signal ? AbortSignal.any([signal, until]) : (until ?? signal),
      generation: this.#generation,
      progress,
      logs: this.#logsOf(paths),
    };
    await mapConcurrently(planUnits(paths), this.#context.unitsAtOnce, async (unit) => {
      if (until?.aborted) return this.#stop(unit);
      try {
        const { files, failed } = await uploadUnit(unit, uploadContext);
        for (const [narHash, file] of files) this.#memory.files.set(narHash, file);
        for (const [narHash, error] of failed) this.#failed.set(narHash, error.message);
        this.#failuresInARow = 0;
      } catch (error) {
        if (until?.aborted && !signal?.aborted) this.#stop(unit);
        else this.#storeFailed(unit, error);
      }
    });
  }

  #stop(unit: Unit): void {
    this.#stopped = true;
    this.#unitFailed(unit, "stopped before it was uploaded");
  }

  /** A log that cannot be read costs nothing but itself. */
  #logsOf(paths: readonly PathInfo[]): LogsByNar {
    const { buildLog, warn } = this.#context;
    const logs = new Map<string, Map<string, () => Uint8Array | undefined>>();
    for (const { deriver, narHash } of paths) {
      if (!buildLog || deriver === undefined || !isAttachedPath(logPath(baseName(deriver)))) continue;
      const owner = this.#logs.get(deriver) ?? narHash;
      if (owner !== narHash) continue;
      this.#logs.set(deriver, owner);
      const read = () => {
        try {
          return buildLog(deriver);
        } catch (error) {
          if (!(error instanceof NixcacheError)) throw error;
          warn(error.message);
          return undefined;
        }
      };
      logs.set(narHash, (logs.get(narHash) ?? new Map()).set(baseName(deriver), read));
    }
    return logs;
  }

  /** A blob that cannot be uploaded costs its paths; a store that is not there ends the publish. */
  #storeFailed(unit: Unit, error: unknown): void {
    const passing =
      error instanceof NixcacheError && (error.code === "unreachable" || error.code === "protocol");
    if (!passing || ++this.#failuresInARow >= MAX_FAILURES_IN_A_ROW) throw error;
    this.#unitFailed(unit, error.message);
  }

  #unitFailed(unit: Unit, reason: string): void {
    const paths = unit.kind === "pack" ? unit.paths : [unit.path];
    for (const { narHash } of paths) this.#failed.set(narHash, reason);
  }

  /** Blobs that the store had, or took, and has no longer: their paths are dumped and uploaded once more. */
  async #uploadAgain(missing: ReadonlySet<Digest>, lines: readonly EntryLine[]): Promise<void> {
    const affected = new Set(
      lines
        .filter((line) => blobsOf([line]).some(({ digest }) => missing.has(digest)))
        .map(({ storeHash }) => storeHash),
    );
    const paths = this.#closure.filter(({ path }) => affected.has(storeHashOf(path)));
    if (paths.length < affected.size) this.#canKeep = false;
    this.#context.warn(
      `${missing.size} blobs are gone from the cache; uploading ${paths.length} paths again`,
    );
    for (const { path, narHash } of paths) {
      this.#restated.delete(path);
      this.#kept.delete(path);
      this.#memory.files.delete(narHash);
    }
    await this.#upload(this.toUpload());
  }

  #lines(): { lines: EntryLine[]; leftOut: LeftOut[] } {
    const failed = new Map<string, string>();
    for (const { path, narHash } of this.#closure) {
      const reason = this.#failed.get(narHash);
      if (this.#isNew(path) && reason !== undefined) failed.set(path, reason);
    }
    const reasons = new Map([...failed, ...keptReasons(this.#kept)]);
    const { complete, leftOut } = leaveOutDependents(this.#closure, reasons);
    const lines: EntryLine[] = [];
    for (const info of complete) {
      const known = this.#restated.get(info.path);
      const file = this.#memory.files.get(info.narHash);
      const realisations = this.#context.realisations?.get(info.path) ?? [];
      const { key } = this.#context;
      if (known) lines.push(restatedLine(known, realisations, key, this.#now));
      else if (file && this.#isNew(info.path)) {
        const replaced = this.#selection.replaced.get(info.path);
        lines.push(newLine(info, file, realisations, key, this.#now, replaced));
      }
    }
    const { view } = this.#context.database;
    if (lines.length > 0 && this.#canKeep) lines.push(...keptLines(view, this.keptOut(), lines));
    lines.sort((a, b) => (a.storeHash < b.storeHash ? -1 : 1));
    return { lines, leftOut };
  }

  #record(lines: readonly EntryLine[]): PublishRecord {
    const { key } = this.#context;
    const { repository: _, ...origin } = this.#origin;
    return {
      ...origin,
      time: new Date(cacheTime(this.#context)).toISOString(),
      keys: key ? [formatPublicKey(publicKeyOf(key))] : [],
      content: digestOf(lines.map(formatLine).join("\n")),
      entries: lines.length,
      ...(this.#stopped && { partial: true as const }),
    };
  }

  /** Whether anything was uploaded that no generation had. */
  #hasNews(): boolean {
    return this.#closure.some(({ path, narHash }) => this.#isNew(path) && this.#memory.files.has(narHash));
  }

  /** What a publish of this line succeeds. */
  #newestOf(line: Parameters<typeof sameLine>[0]): Generation | undefined {
    const { view } = this.#context.database;
    return view.generations().findLast(({ record }) => sameLine(record, line));
  }

  /** Rule 7: identical to the newest generation of its kind, and that one is young; else a revert would be lost. */
  #isUnchanged(record: PublishRecord): boolean {
    const newest = this.#newestOf(record);
    if (newest === undefined || newest.record.content !== record.content) return false;
    // The same paths, and yet it is the one that says that the run came to its end.
    if (newest.record.partial !== record.partial) return false;
    if (JSON.stringify(newest.record.roots) !== JSON.stringify(record.roots)) return false;
    return Math.abs(cacheTime(this.#context) - generationTime(newest.name)) < UNCHANGED_MS;
  }
}
