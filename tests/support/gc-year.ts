/**
 * A year of a cache's life, against a real registry, with clocks of its own: three branches and two systems publish
 * each day by the real publish, the real gc runs each week at the same moment, both are killed at any request, and
 * what was published yesterday comes back. After each day everything that the policy promises must be there.
 */
import { indexLayerOf } from "../../src/cache/manifests.ts";
import { lineOf } from "../../src/cache/record.ts";
import { type GenerationName, generationTime, parseTag, segmentTag } from "../../src/cache/tags.ts";
import { mapConcurrently } from "../../src/concurrency.ts";
import { collectGarbage } from "../../src/gc/gc.ts";
import type { Policy } from "../../src/gc/plan.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import type { Store } from "../../src/oci/store.ts";
import { readLayer } from "../../src/protocol/layer-blob.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { Compressor } from "../../src/publish/nar-file.ts";
import { publish } from "../../src/publish/publish.ts";
import { silentProgress } from "../../src/terminal/progress.ts";
import { DAY, HOUR } from "./gc-stretch.ts";
import { party, storeHash, TestHost, type TestParty } from "./protocol.ts";
import { pathOf, type TestPath, testClosure } from "./publish.ts";
import type { Choices } from "./seed-choices.ts";

export const YEAR_POLICY: Policy = {
  retentionMs: 14 * DAY,
  keepLast: 1,
  keepBranches: [],
  dropBranches: [],
};

export const BRANCHES = ["main", "next", "release"];
export const SYSTEMS = ["x86_64-linux", "aarch64-linux"];

/** Clocks are at most this far from the true time, either way. */
const SKEW_MS = HOUR / 2;
/** Of one that is to be killed; a whole publish has some 10 to 40, a whole gc some hundreds. */
const MOST_REQUESTS = { publish: 40, gc: 500 };
/** After so many gcs in a row that were to be killed one comes through. */
const MOST_KILLED = 2;
const AT_ONCE = 8;

class Killed extends Error {}

/** A generation as the registry has it, found by its tag. */
interface Committed {
  readonly line: string;
  /** Names of its paths. */
  readonly names: readonly string[];
}

export class Year implements Disposable {
  readonly store: Store;
  readonly choices: Choices;
  time: number;
  /** Everything that was ever committed, by whomever, killed or not. */
  readonly committed = new Map<GenerationName, Committed>();
  readonly counts = { published: 0, unchanged: 0, reverted: 0, killed: 0, collected: 0 };
  readonly reader: TestParty;
  readonly #parties = new Map<string, TestParty>();
  /** What each line published last, and before that. */
  readonly #last = new Map<string, { now: readonly TestPath[]; before: readonly TestPath[] }>();
  readonly #names = new Map<string, string>();
  #killedInARow = 0;

  constructor(store: Store, start: number, choices: Choices) {
    this.store = store;
    this.choices = choices;
    this.time = start;
    this.reader = party(store, this.#clock());
  }

  /** One day: everybody publishes, and `collects` has gc run among them. */
  async day(day: number, collects: boolean): Promise<void> {
    this.time += 2 * HOUR;
    const everybody = BRANCHES.flatMap((branch) =>
      SYSTEMS.map((system) => () => this.#publish(day, branch, system)),
    );
    if (collects) {
      const mayDie = this.#killedInARow < MOST_KILLED && this.choices.random() < 0.4;
      this.#killedInARow = mayDie ? this.#killedInARow + 1 : 0;
      const collect = () => this.collect(mayDie);
      everybody.splice(this.choices.below(everybody.length), 0, collect);
    }
    // Two at a time, so that each has others in front of and behind it.
    await mapConcurrently(everybody, 2, (act) => act());
    this.time += DAY - 2 * HOUR;
    await this.#learn();
  }

  /** gc as a fresh machine runs it; one that is killed is run again by the next week's. */
  async collect(mayDie: boolean, policy = YEAR_POLICY): Promise<void> {
    this.counts.collected++;
    using machine = party(mayDie ? this.#deadlyWay(MOST_REQUESTS.gc) : this.store, this.#clock());
    await this.#unlessKilled(() => collectGarbage(machine, policy));
  }

  async #publish(day: number, branch: string, system: string): Promise<void> {
    const line = `${branch} ${system}`;
    const { now = [], before = [] } = this.#last.get(line) ?? {};
    const chance = this.choices.random();
    const reverts = chance < 0.05 && before.length > 0;
    const changes = now.length === 0 || chance < 0.75;
    const wanted = reverts ? before : changes ? this.#closure(day, branch, system) : now;
    this.#last.set(line, { now: wanted, before: now });
    if (reverts) this.counts.reverted++;
    const tries = this.choices.random() < 0.1 ? 1 : 2;
    for (let attempt = 1; attempt <= tries; attempt++) {
      // The second try of a run is one that comes through; a run without one is made up for tomorrow.
      const mayDie = tries === 1 || (attempt === 1 && this.choices.random() < 0.1);
      if (await this.#publishOnce(branch, system, wanted, mayDie)) return;
    }
  }

  /** @returns whether it came to its end */
  async #publishOnce(
    branch: string,
    system: string,
    paths: readonly TestPath[],
    mayDie: boolean,
  ): Promise<boolean> {
    const { closure, dump } = testClosure(paths);
    const [root = ""] = paths.slice(-1).map(({ name }) => pathOf(name));
    const origin = {
      ...{ tool: "test", source: `repo#${branch}`, branch, system, selection: "packages" },
      roots: { default: root },
    };
    return this.#unlessKilled(async () => {
      using mortal = mayDie ? party(this.#deadlyWay(MOST_REQUESTS.publish), this.#clock()) : undefined;
      const machine = mortal ?? this.#machine(`${branch} ${system}`);
      const { generation, leftOut } = await publish(closure, origin, {
        ...machine,
        upstreams: [],
        dump,
        key: undefined,
        compressor: new Compressor(1, 1),
        partBytes: 1 << 30,
        unitsAtOnce: 2,
        progress: silentProgress(),
      });
      if (leftOut.length > 0) throw new Error(`${branch}: left out ${JSON.stringify(leftOut)}`);
      this.counts[generation === null ? "unchanged" : "published"]++;
    });
  }

  /** One path that all branches have and that changes each month, one of the branch and week, and the day's own. */
  #closure(day: number, branch: string, system: string): TestPath[] {
    const base = `base-${system}-${Math.floor(day / 30)}`;
    const library = `${branch}-${system}-w${Math.floor(day / 7)}`;
    const program = `${branch}-${system}-d${day}`;
    const paths = [
      { name: base, size: 3000 },
      { name: library, size: 2000, references: [base] },
      { name: program, size: 1000, references: [library, base] },
    ];
    for (const { name } of paths) this.#names.set(storeHash(name), name);
    return paths;
  }

  /** Mostly the machine of before, with its local index; sometimes, as in CI, one that has never seen the cache. */
  #machine(name: string): TestParty {
    const known = this.#parties.get(name);
    if (known !== undefined && this.choices.random() < 0.9) return known;
    known?.[Symbol.dispose]();
    const machine = party(this.store, this.#clock());
    this.#parties.set(name, machine);
    return machine;
  }

  #clock(): TestHost {
    const skew = (2 * this.choices.random() - 1) * SKEW_MS;
    const host = new TestHost(0, this.choices.below(2 ** 30));
    host.now = () => Math.floor(this.time + skew);
    // Time passes by days alone: several wait at once.
    host.sleep = async () => void (await new Promise((resolve) => setImmediate(resolve)));
    return host;
  }

  /** A way to the store that ends at one of the first requests, before or after it takes effect. */
  #deadlyWay(most: number): Store {
    let left = 1 + this.choices.below(most);
    const isBefore = this.choices.random() < 0.5;
    const call = async <T>(act: () => Promise<T>): Promise<T> => {
      left--;
      if (left < 0 || (left === 0 && isBefore)) throw new Killed();
      const result = await act();
      if (left === 0) throw new Killed();
      return result;
    };
    const methods = Object.entries(this.store).map(([name, value]) => [
      name,
      // What the store has seen of the registry is no request.
      typeof value === "function" && name !== "ignoresRange"
        ? (...args: unknown[]) => call(() => value(...args))
        : value,
    ]);
    return Object.fromEntries(methods) as Store;
  }

  async #unlessKilled(act: () => Promise<unknown>): Promise<boolean> {
    try {
      await act();
      return true;
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      this.counts.killed++;
      return false;
    }
  }

  /** Reads what was committed since the last time, whoever lived to hear of it. */
  async #learn(): Promise<void> {
    for (const tag of await this.store.listTags()) {
      const parsed = parseTag(tag);
      if (parsed?.kind !== "segment" || this.committed.has(parsed.name)) continue;
      const stored = await this.store.readManifest(tag);
      if (typeof stored !== "object") throw new Error(`${tag} is listed and gone`);
      const index = indexLayerOf(decodeManifest(stored.bytes, tag), tag);
      const content = await this.#download(index.digest);
      const names: string[] = [];
      const header = await readLayer({ ...index, content }, tag, ({ storeHash: hash }) => {
        names.push(this.#names.get(hash) as string);
      });
      if (header.kind !== "segment") throw new Error(`${tag} is no segment`);
      this.committed.set(parsed.name, { line: lineOf(header.record), names });
    }
  }

  /** What the policy promises now, worked out in another way than the plan does. */
  promised(): GenerationName[] {
    const newest = new Map<string, GenerationName>();
    for (const name of [...this.committed.keys()].sort())
      newest.set(this.committed.get(name)?.line ?? "", name);
    // One that is over by some clock within the skew is promised by nobody.
    const oldest = this.time - YEAR_POLICY.retentionMs + 2 * SKEW_MS;
    return [...this.committed.keys()].filter(
      (name) => newest.get(this.committed.get(name)?.line ?? "") === name || generationTime(name) >= oldest,
    );
  }

  /**
   * Every path of every promised generation downloads by digest, as one who knows the generation finds it and as a
   * reader does who has followed the cache all the year.
   */
  async check(): Promise<void> {
    const promised = this.promised();
    await refresh(this.reader, { list: true });
    const blobs = new Map<Digest, number>();
    for (const generation of promised) {
      for (const name of this.committed.get(generation)?.names ?? []) {
        const hash = storeHash(name);
        const narinfo = this.reader.database.view.narinfo(hash);
        const file = /^URL: nar\/(.*)$/m.exec(narinfo ?? "")?.[1];
        const parts = file && this.reader.database.view.nar(file)?.parts;
        if (!parts) throw new Error(`${name} of ${generation} is promised, and a reader does not have it`);
        for (const { blob, size } of parts) blobs.set(blob, size);
      }
    }
    await mapConcurrently(promised, AT_ONCE, async (generation) => {
      const stored = await this.store.readManifest(segmentTag(generation));
      if (typeof stored !== "object") throw new Error(`${generation} is promised and gone`);
      for (const { digest, size } of decodeManifest(stored.bytes, generation).layers) blobs.set(digest, size);
    });
    await mapConcurrently([...blobs], AT_ONCE, async ([digest, size]) => {
      const { length } = await this.#download(digest);
      if (length !== size) throw new Error(`${digest} has ${length} bytes and not ${size}`);
    });
  }

  async #download(digest: Digest): Promise<Uint8Array> {
    const stream = await this.store.readBlob(digest);
    if (stream === undefined) throw new Error(`${digest} is promised and gone`);
    const bytes = await new Response(stream).bytes();
    if (digestOf(bytes) !== digest) throw new Error(`${digest} has other bytes`);
    return bytes;
  }

  [Symbol.dispose](): void {
    this.reader[Symbol.dispose]();
    for (const machine of this.#parties.values()) machine[Symbol.dispose]();
  }
}
