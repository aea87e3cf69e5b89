/**
 * A world in which publishers, readers, gc and a registry's collector take turns: each waits at every store
 * call until it is drawn. Tag lists are stale, clocks are up to an hour apart, time jumps, actors are killed
 * before or after a call takes effect. After each change the promises of the storage protocol are checked.
 * Everything follows from the seed.
 */
import { allParts, filesOf } from "../../src/cache/entry.ts";
import { indexLayerOf } from "../../src/cache/manifests.ts";
import { type GenerationName, generationId, parseTag, ROOT_TAG, segmentTag } from "../../src/cache/tags.ts";
import type { Host } from "../../src/host.ts";
import { type Digest, digestHex } from "../../src/oci/digest.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import type { Store, StoredManifest } from "../../src/oci/store.ts";
import { readLayer } from "../../src/protocol/layer-blob.ts";
import { MemoryStore } from "./memory-store.ts";
import { TestHost } from "./protocol.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** How old a tag list may be. */
const STALE_MS = 30 * SECOND;

/** From reading the clock to a PUT taking effect passes at most this: the protocol's one assumption on time. */
const CLOCK_TO_PUT_MS = HOUR;

/** When a registry removes blobs that no manifest names. */
const COLLECT_AFTER_MS = HOUR;

export class Killed extends Error {}

/** What a live segment promises: its blobs, and the names of its paths by store hash. */
interface Promised {
  readonly blobs: ReadonlySet<Digest>;
  readonly hashes: ReadonlySet<string>;
}

export class Simulation {
  readonly truth = new MemoryStore();
  readonly random: () => number;
  time = Date.UTC(2026, 0, 1);
  /** Every root that ever was. */
  readonly roots: StoredManifest[] = [];
  readonly #lists: { time: number; tags: string[] }[] = [];
  readonly #uploaded = new Map<Digest, number>();
  readonly #untagged = new Map<Digest, number>();
  readonly #promised = new Map<Digest, Promised>();
  readonly #waiting = new Map<Actor, () => void>();
  readonly #active = new Set<Actor>();
  #wake = () => {};

  constructor(seed: number) {
    this.random = new TestHost(0, seed).random;
  }

  draw(below: number): number {
    return Math.floor(this.random() * below);
  }

  /** Lets an actor run; its store calls wait for their turn. */
  start(actor: Actor, run: () => Promise<void>): void {
    this.#active.add(actor);
    const end = () => {
      this.#active.delete(actor);
      this.#waiting.delete(actor);
      this.#wake();
    };
    actor.done = run().then(end, (error) => {
      end();
      if (!(error instanceof Killed)) throw error;
    });
    actor.done.catch(() => {});
  }

  get activeCount(): number {
    return this.#active.size;
  }

  turn(actor: Actor): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.set(actor, resolve);
      this.#wake();
    });
  }

  /** Lets one actor take one step, once all of them wait. */
  async step(): Promise<void> {
    while (this.#waiting.size < this.#active.size) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const waiting = [...this.#waiting.keys()];
    const actor = waiting[this.draw(waiting.length)];
    if (actor === undefined) return;
    this.#advance();
    const resume = this.#waiting.get(actor);
    this.#waiting.delete(actor);
    resume?.();
  }

  #advance(): void {
    const kind = this.random();
    const longest = kind < 0.75 ? 2 * SECOND : kind < 0.93 ? MINUTE : kind < 0.97 ? 30 * MINUTE : 40 * HOUR;
    this.time += this.random() * longest;
  }

  /** A list of tags as it was at some moment of the last half minute. */
  staleTags(): string[] {
    const recent = this.#lists.filter(({ time }) => this.time - time <= STALE_MS);
    const before = this.#lists.findLast(({ time }) => this.time - time > STALE_MS);
    const choices = before ? [before, ...recent] : [{ time: 0, tags: [] }, ...recent];
    return choices[this.draw(choices.length)]?.tags ?? [];
  }

  /** Called after a change of the truth. */
  async changed(): Promise<void> {
    const { truth } = this;
    this.#lists.push({ time: this.time, tags: [...truth.tags.keys()] });
    const root = truth.manifests.get(truth.tags.get(ROOT_TAG) as Digest);
    if (root && this.roots.at(-1)?.digest !== root.digest) this.roots.push(root);
    for (const digest of truth.blobs.keys())
      if (!this.#uploaded.has(digest)) this.#uploaded.set(digest, this.time);
    const tagged = new Set(truth.tags.values());
    for (const digest of truth.manifests.keys()) {
      if (tagged.has(digest)) this.#untagged.delete(digest);
      else if (!this.#untagged.has(digest)) this.#untagged.set(digest, this.time);
    }
    for (const name of this.live()) await this.promisedBy(name);
    this.check();
  }

  live(): GenerationName[] {
    const tags = [...this.truth.tags.keys()].map(parseTag);
    const dead = new Set(tags.flatMap((tag) => (tag?.kind === "dead" ? [tag.id] : [])));
    return tags.flatMap((tag) =>
      tag?.kind === "segment" && !dead.has(generationId(tag.name)) ? [tag.name] : [],
    );
  }

  /** Live segments so old that every list shows them. */
  settled(): GenerationName[] {
    const old = this.#lists.findLast(({ time }) => this.time - time > STALE_MS);
    return this.live().filter((name) => old?.tags.includes(segmentTag(name)));
  }

  async promisedBy(name: GenerationName): Promise<Promised> {
    const digest = this.truth.tags.get(segmentTag(name)) as Digest;
    const known = this.#promised.get(digest);
    if (known) return known;
    const { layers } = decodeManifest(this.truth.manifests.get(digest)?.bytes as Uint8Array, name);
    const index = indexLayerOf({ layers } as never, name);
    const content = this.truth.blobs.get(index.digest);
    if (content === undefined) throw new Error(`${name}: its index layer is missing at the commit`);
    const blobs = new Set(layers.map((layer) => layer.digest));
    const hashes = new Set<string>();
    await readLayer({ ...index, content }, name, (line) => {
      hashes.add(line.storeHash);
      for (const part of allParts(filesOf(line.rest, name))) blobs.add(part.blob);
    });
    const promised = { blobs, hashes };
    this.#promised.set(digest, promised);
    return promised;
  }

  /** Every live segment's blobs exist. */
  check(): void {
    for (const name of this.live()) {
      const promised = this.#promised.get(this.truth.tags.get(segmentTag(name)) as Digest);
      for (const blob of promised?.blobs ?? []) {
        if (!this.truth.blobs.has(blob)) {
          throw new Error(
            `live segment ${name} names the blob ${digestHex(blob).slice(0, 8)}, which is gone`,
          );
        }
      }
    }
  }

  /** Store hashes of all live segments. */
  async union(): Promise<Set<string>> {
    const all = new Set<string>();
    for (const name of this.live()) for (const hash of (await this.promisedBy(name)).hashes) all.add(hash);
    return all;
  }

  /** What a registry does by itself: drops manifests without a tag, then blobs without a manifest. */
  async collect(): Promise<void> {
    const { truth } = this;
    for (const [digest, since] of this.#untagged) {
      if (this.time - since >= COLLECT_AFTER_MS && truth.manifests.delete(digest))
        this.#untagged.delete(digest);
    }
    const kept = new Map(truth.blobs);
    truth.collect();
    for (const [digest, bytes] of kept) {
      const since = this.#uploaded.get(digest) ?? 0;
      if (truth.blobs.has(digest)) continue;
      if (this.time - since < COLLECT_AFTER_MS) truth.blobs.set(digest, bytes);
      else this.#uploaded.delete(digest);
    }
    await this.changed();
  }
}

/** One process: its clock, and its way to the store. */
export class Actor {
  readonly #simulation: Simulation;
  readonly #skew: number;
  readonly host: Host;
  readonly store: Store;
  done: Promise<void> = Promise.resolve();
  #clockRead = 0;
  /** Store calls until it is killed. */
  #left: number;
  #killed = false;

  constructor(simulation: Simulation, options: { skew: number; killAfter?: number | undefined }) {
    this.#simulation = simulation;
    this.#skew = options.skew;
    this.#left = options.killAfter ?? Number.POSITIVE_INFINITY;
    this.host = {
      now: () => {
        this.#clockRead = simulation.time;
        return Math.floor(simulation.time + this.#skew);
      },
      random: simulation.random,
      sleep: (ms) => this.#sleep(ms),
    };
    this.store = this.#makeStore();
  }

  async #sleep(ms: number): Promise<void> {
    await this.#simulation.turn(this);
    this.#simulation.time += ms;
  }

  async #call<T>(name: string, act: (truth: MemoryStore) => Promise<T>): Promise<T> {
    if (this.#killed) throw new Killed();
    await this.#simulation.turn(this);
    const late = name === "writeManifest" && this.#simulation.time - this.#clockRead > CLOCK_TO_PUT_MS;
    const dies = --this.#left <= 0 || late;
    // Killed before the call takes effect, or after it and before the answer.
    if (late || (dies && this.#simulation.random() < 0.5)) this.#kill();
    const result = await act(this.#simulation.truth);
    if (/^(write|delete)/.test(name)) await this.#simulation.changed();
    if (dies) this.#kill();
    return result;
  }

  #kill(): never {
    this.#killed = true;
    throw new Killed();
  }

  #makeStore(): Store {
    const call = this.#call.bind(this);
    const simulation = this.#simulation;
    return {
      name: "simulated",
      get strictness() {
        return simulation.truth.strictness;
      },
      statBlob: (digest) => call("statBlob", (truth) => truth.statBlob(digest)),
      readBlob: (digest, options) => call("readBlob", (truth) => truth.readBlob(digest, options)),
      writeBlob: (source) => call("writeBlob", (truth) => truth.writeBlob(source)),
      readManifest: (reference, options) =>
        call("readManifest", (truth) => truth.readManifest(reference, options)),
      statManifest: (reference) => call("statManifest", (truth) => truth.statManifest(reference)),
      writeManifest: (reference, type, bytes) =>
        call("writeManifest", (truth) => truth.writeManifest(reference, type, bytes)),
      deleteManifest: (digest) => call("deleteManifest", (truth) => truth.deleteManifest(digest)),
      listTags: () => call("listTags", async () => simulation.staleTags()),
    };
  }
}
