/**
 * Weeks of a cache's life with a clock of their own: daily publishes from three branches and two systems, one branch
 * that goes away, a weekly collection. After each collection everything that the policy promises must be there.
 */
import type { PublishRecord } from "../../src/cache/record.ts";
import { type GenerationName, generationTime, segmentTag } from "../../src/cache/tags.ts";
import { collectGarbage, type GcReport } from "../../src/gc/gc.ts";
import type { Policy } from "../../src/gc/plan.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import type { Store } from "../../src/oci/store.ts";
import { foldOrWarn } from "../../src/protocol/fold.ts";
import { commitNames, party, TestHost, type TestParty } from "./protocol.ts";

export const HOUR = 3_600_000;
export const DAY = 24 * HOUR;
export const STRETCH_POLICY: Policy = {
  retentionMs: 5 * DAY,
  keepLast: 1,
  keepBranches: [],
  dropBranches: [],
};

/** What a publish of `main` says of itself. */
export const MAIN_LINE: Partial<PublishRecord> = {
  source: "repo main",
  branch: "main",
  system: "x86_64-linux",
  selection: "packages",
};

const BRANCHES = ["main", "next", "pr/7"];
const SYSTEMS = ["x86_64-linux", "aarch64-linux"];
/** The day on which nobody publishes `pr/7` any more. */
const LAST_OF_PR = 3;

export class Stretch implements Disposable {
  readonly store: Store;
  readonly publisher: TestParty;
  readonly collector: TestParty;
  readonly host: TestHost;
  /** Everything that was committed, with its line. */
  readonly committed: { name: GenerationName; line: string }[] = [];
  /** Called before the day's publishes. */
  beforeDay: (day: number) => Promise<void> = async () => {};

  constructor(store: Store, start: number, collecting: Store = store) {
    this.store = store;
    this.host = new TestHost(start);
    this.publisher = party(store, this.host);
    this.collector = party(collecting, this.host);
  }

  async run(days: number, collect: () => Promise<unknown> = () => this.collect()): Promise<void> {
    for (let day = 0; day < days; day++) {
      await this.beforeDay(day);
      for (const branch of BRANCHES) {
        if (branch === "pr/7" && day > LAST_OF_PR) continue;
        for (const system of SYSTEMS) await this.publish(day, branch, system);
      }
      await foldOrWarn(this.publisher);
      if (day % 7 === 6) {
        await collect();
        await this.check();
      }
      this.host.time += DAY;
    }
  }

  async publish(day: number, branch: string, system: string): Promise<GenerationName> {
    // One path that all have, one for each branch, and one that is new each day.
    const names = [
      `common-${system}`,
      `${branch.replace("/", "-")}-${system}`,
      `day-${day}-${branch.replace("/", "-")}-${system}`,
    ];
    const line: Partial<PublishRecord> = { source: `repo ${branch}`, branch, system, selection: "packages" };
    this.host.time += 1000;
    const name = await commitNames(this.publisher, names, line);
    this.committed.push({ name, line: `${branch} ${system}` });
    return name;
  }

  collect(policy: Policy = STRETCH_POLICY): Promise<GcReport> {
    return collectGarbage(this.collector, policy);
  }

  /** What the policy promises, worked out in another way than the plan does. */
  promised(): GenerationName[] {
    const newest = new Map(this.committed.map(({ line, name }) => [line, name]));
    return this.committed
      .filter(
        ({ line, name }) =>
          newest.get(line) === name || this.host.time - generationTime(name) < STRETCH_POLICY.retentionMs,
      )
      .map(({ name }) => name);
  }

  /** Everything promised can be had by digest, and is what its digest says. */
  async check(): Promise<void> {
    for (const name of this.promised()) {
      const stored = await this.store.readManifest(segmentTag(name));
      if (typeof stored !== "object") throw new Error(`${name} is promised and gone`);
      for (const { digest } of decodeManifest(stored.bytes, name).layers) {
        const stream = await this.store.readBlob(digest);
        if (stream === undefined) throw new Error(`${name}: ${digest} is gone`);
        const bytes = await new Response(stream).bytes();
        if (digestOf(bytes) !== digest) throw new Error(`${name}: ${digest} has other bytes`);
      }
    }
  }

  /** Generations that are alive by their tags. */
  async alive(): Promise<GenerationName[]> {
    const tags = await this.store.listTags();
    const dead = new Set(tags.flatMap((tag) => (tag.startsWith("dead-") ? [tag.slice(-16)] : [])));
    return tags
      .flatMap((tag) => (tag.startsWith("seg-") && !dead.has(tag.slice(-16)) ? [tag.slice(4)] : []))
      .sort();
  }

  [Symbol.dispose](): void {
    this.publisher[Symbol.dispose]();
    this.collector[Symbol.dispose]();
  }
}
