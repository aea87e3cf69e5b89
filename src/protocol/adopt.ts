/**
 * Adopting a cache of nixcache-oci: one generation that names its NARs, which no manifest did. Nothing is uploaded but
 * the lines; the old tag stays as it is, and readers know by the record that they need it no more.
 */
import { type EntryLine, formatLine } from "../cache/entry.ts";
import type { BlobReference } from "../cache/manifests.ts";
import { type PublishRecord, v1Record } from "../cache/record.ts";
import { adoptedTag, type GenerationName, V1_TAG } from "../cache/tags.ts";
import { BrokenEntries, type V1Head, V1IndexParser, type V1Item } from "../cache/v1-index.ts";
import { V1Plan } from "../cache/v1-plan.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import type { Digest } from "../oci/digest.ts";
import { discardBlob, readBlobNow } from "../oci/spool.ts";
import type { BlobSource } from "../oci/store.ts";
import type { Upstream } from "../upstream/client.ts";
import { UpstreamQuestions } from "../upstream/questions.ts";
import { TOOL } from "../version.ts";
import type { ProtocolContext } from "./context.ts";
import { foldOrWarn } from "./fold.ts";
import { GenerationWriter } from "./generation.ts";
import { refresh } from "./refresh.ts";
import { countsV1, fetchV1Index } from "./v1-index.ts";

/** Roots that the record names, the newest: nixcache-oci keeps those of every publish, and a record is one line. */
const MAX_ROOTS = 2_000;

/** How often a commit is tried again without NARs that have vanished. */
const COMMIT_ATTEMPTS = 4;

export interface Adoption {
  readonly generation: GenerationName;
  /** Store paths, and those that had to be left out. */
  readonly paths: number;
  readonly leftOut: number;
}

/**
 * Adopts the index of nixcache-oci that the local view shows; undefined when it shows none, or another publisher was
 * first. Killed anywhere, the next run does it again.
 * @param upstreams asked whether they have what is broken: only a clear "no" costs its dependents
 * @throws when the store fails; then nothing was adopted
 */
export async function adoptV1(
  context: ProtocolContext,
  upstreams: readonly Upstream[] = [],
): Promise<Adoption | undefined> {
  const { store, signal } = context;
  const { view } = context.database;
  const index = view.state().v1?.index;
  const layer = view.v1Layer();
  if (index === undefined || layer === undefined) return undefined;
  // A list that is stale may lack the tag, and the generation may be over (R7).
  if ((await store.statManifest(adoptedTag(index.digest), { signal })) !== undefined) return undefined;
  const blob = await fetchV1Index(context, index);
  try {
    return await new AdoptionRun(context, upstreams, { index, blob, layer: layer.id }).run();
  } finally {
    discardBlob(blob);
  }
}

interface AdoptedIndex {
  readonly index: BlobReference;
  /** Its bytes, read anew for each pass: entries are never all in memory. */
  readonly blob: BlobSource;
  /** The layer of the local view that holds it. */
  readonly layer: number;
}

class AdoptionRun {
  readonly #context: ProtocolContext;
  readonly #questions: UpstreamQuestions;
  readonly #source: AdoptedIndex;
  readonly #plan = new V1Plan();
  readonly #generation: GenerationWriter;

  constructor(context: ProtocolContext, upstreams: readonly Upstream[], source: AdoptedIndex) {
    this.#context = context;
    this.#questions = new UpstreamQuestions(upstreams, {
      ...{ signal: context.signal, warn: context.warn },
      consequence: "so it may have what is broken here",
    });
    this.#source = source;
    this.#generation = new GenerationWriter(context, {});
  }

  async run(): Promise<Adoption | undefined> {
    const { head, known, unsigned } = this.#read();
    // It is adopted whole or not at all: afterwards nobody looks at the index any more.
    if (unsigned > 0) {
      this.#context.warn(
        `${V1_TAG} of ${this.#context.store.name} is not adopted: ${unsigned} of its paths are signed by none of the given keys; --allow-unsigned-generations adopts it all the same`,
      );
      return undefined;
    }
    await this.#checkNars(known);
    if (!(await this.#isStillThere())) return undefined;
    for (let attempt = 0; attempt < COMMIT_ATTEMPTS; attempt++) {
      await this.#plan.leaveOutDependents((hashes) => this.#elsewhere(hashes));
      const { record, leftOut } = this.#record(head);
      const outcome = await this.#generation.commit(record, this.#lines(), this.#plan.blobs());
      if ("committed" in outcome) {
        if (leftOut.count > 0) this.#warn(leftOut, record.entries);
        await foldOrWarn(this.#context);
        return { generation: outcome.committed, paths: record.entries, leftOut: leftOut.count };
      }
      this.#plan.leaveOutNars(new Map(outcome.missing.map((digest) => [digest, "its NAR has vanished"])));
    }
    throw new NixcacheError(
      "protocol",
      `${this.#context.store.name}: NARs of ${V1_TAG} vanish one after the other`,
      {
        hint: "The registry is collecting what no manifest names: run it again.",
      },
    );
  }

  /** The first pass: who refers to whom, and which NARs a generation of ours names already. */
  #read(): { head: V1Head; known: ReadonlySet<Digest>; unsigned: number } {
    const { view } = this.#context.database;
    const { layer } = this.#source;
    const isFirst = view.layers().length === 1;
    const known = new Set<Digest>();
    let unsigned = 0;
    const items = this.#items();
    for (let next = items.next(); ; next = items.next()) {
      if (next.done) return { head: next.value, known, unsigned };
      this.#plan.add(next.value);
      if ("line" in next.value && !countsV1(this.#context, next.value)) unsigned++;
      if (isFirst || !("line" in next.value)) continue;
      const { storeHash, file } = next.value.line;
      if (!view.isElsewhere(layer, storeHash, file)) continue;
      for (const { blob } of next.value.entry.parts) known.add(blob);
    }
  }

  *#items(): Generator<V1Item, V1Head, undefined> {
    const parser = new V1IndexParser(V1_TAG);
    for (const chunk of readBlobNow(this.#source.blob)) yield* parser.push(chunk);
    return parser.end();
  }

  *#lines(): Generator<EntryLine, void, undefined> {
    for (const item of this.#items())
      if ("line" in item && this.#plan.problem(item.line.storeHash) === undefined) yield item.line;
  }

  /** Looks for each NAR, and holds those that are there: nothing has named them so far. */
  async #checkNars(known: ReadonlySet<Digest>): Promise<void> {
    const { store, concurrency, signal, info } = this.#context;
    const wanted = this.#plan.blobs().filter(({ digest }) => !known.has(digest));
    info?.(`adopting the cache of nixcache-oci: looking for ${wanted.length} NARs`);
    const problems = new Map<Digest, string>();
    await mapConcurrently(wanted, concurrency, async (blob) => {
      const size = await store.statBlob(blob.digest, { signal });
      if (size === blob.size) return this.#generation.uploaded(blob);
      const found = size === undefined ? "is not there any more" : `has ${size} bytes, expected ${blob.size}`;
      problems.set(blob.digest, `its NAR ${blob.digest} ${found}`);
    });
    this.#plan.leaveOutNars(problems);
  }

  /** False when it has changed or was adopted meanwhile: looking for 100,000 NARs takes minutes. */
  async #isStillThere(): Promise<boolean> {
    await refresh(this.#context, { list: true });
    return this.#context.database.view.v1Layer()?.digest === this.#source.index.digest;
  }

  async #elsewhere(storeHashes: readonly string[]): Promise<ReadonlySet<string>> {
    const { database, concurrency } = this.#context;
    const { id } = database.view.v1Layer() ?? { id: this.#source.layer };
    const found = await mapConcurrently(storeHashes, concurrency, async (hash) => {
      return database.view.isElsewhere(id, hash) || (await this.#questions.ask(hash)) !== "absent";
    });
    return new Set(storeHashes.filter((_, at) => found[at]));
  }

  #record(head: V1Head): { record: PublishRecord; leftOut: BrokenEntries } {
    const leftOut = new BrokenEntries();
    const roots: { path: string; added: number }[] = [];
    const content = new Bun.CryptoHasher("sha256");
    let entries = 0;
    for (const item of this.#items()) {
      if (!("line" in item)) {
        leftOut.add(item.name, item.problem);
        continue;
      }
      const { line, entry } = item;
      const problem = this.#plan.problem(line.storeHash);
      if (problem !== undefined) {
        leftOut.add(entry.info.storePath, problem);
        continue;
      }
      content.update(entries++ === 0 ? formatLine(line) : `\n${formatLine(line)}`);
      if (head.roots.has(line.storeHash)) roots.push({ path: entry.info.storePath, added: entry.added });
    }
    const newest = roots.sort((a, b) => b.added - a.added).slice(0, MAX_ROOTS);
    const { index } = this.#source;
    const record: PublishRecord = {
      ...v1Record(index.digest, head.keys, new Date(this.#context.host.now()).toISOString()),
      tool: TOOL,
      roots: Object.fromEntries(newest.map(({ path }) => [path.slice(path.lastIndexOf("/") + 1), path])),
      content: `sha256:${content.digest("hex")}`,
      entries,
      adopted: index.digest,
    };
    return { record, leftOut };
  }

  #warn(leftOut: BrokenEntries, adopted: number): void {
    this.#context.warn(
      `${V1_TAG} of ${this.#context.store.name}: ${leftOut.count} of ${leftOut.count + adopted} paths are left out: ${leftOut}`,
    );
  }
}
