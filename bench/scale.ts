/**
 * How a cache grows: `bun bench/scale.ts [ENTRIES…]` writes caches of 1,000 to 1,000,000 entries into a docker-registry
 * and prints, as the tables of docs/scale.md, what each step costs there. Takes a quarter of an hour for all.
 */
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { ensureParts } from "../scripts/parts.ts";
import { runScript } from "../scripts/process.ts";
import { layersFolder } from "../src/cache/index-files.ts";
import { layersToKeep, MAX_LAYERS } from "../src/cache/stack.ts";
import { foldOrWarn } from "../src/protocol/fold.ts";
import { GenerationWriter } from "../src/protocol/generation.ts";
import { refresh } from "../src/protocol/refresh.ts";
import { startFarProxy } from "../tests/support/far-proxy.ts";
import { Cleanup } from "../tests/support/lease.ts";
import { party, type TestParty, testRecord } from "../tests/support/protocol.ts";
import { startRegistry } from "../tests/support/registry.ts";
import { type Bench, openBench } from "./bench.ts";
import { benchEntry, writeCache } from "./cache.ts";
import { describeLoad, describeMachine } from "./machine.ts";
import { writableStore } from "./served.ts";

const SIZES = [1_000, 10_000, 100_000, 1_000_000];

/** Paths of a publish, and how many of them are new. */
const CLOSURE = 3_000;
const NEW = 10;

const KIB = 1024;
const MIB = 1024 ** 2;

await runScript(async () => {
  const sizes = process.argv.slice(2).map(Number);
  await ensureParts(["registry"]);
  console.log(`${await describeMachine()}, ${describeLoad()}\n`);
  const bench = await openBench({ quick: false });
  try {
    const columns: Record<string, string>[] = [];
    for (const entries of sizes.length > 0 ? sizes : SIZES) columns.push(await measure(bench, entries));
    printTable(columns);
    console.log(`\n${describeStack()}`);
  } finally {
    await bench.close();
  }
  return 0;
});

async function measure(bench: Bench, entries: number): Promise<Record<string, string>> {
  const cleanup = new Cleanup();
  try {
    const registry = cleanup.add(await startRegistry());
    const proxy = cleanup.add(await startFarProxy({ target: registry.host }));
    const written = await writeCache(writableStore(`${registry.host}/scale`), { entries, closure: CLOSURE });
    const cache = `${proxy.host}/scale`;
    const open = () => {
      const opened = party(writableStore(cache));
      cleanup.add({ close: async () => opened[Symbol.dispose]() });
      return opened;
    };
    const cost = async (work: () => Promise<unknown>) => {
      proxy.requests.length = 0;
      const [begun, used] = [performance.now(), process.cpuUsage()];
      await work();
      const { user, system } = process.cpuUsage(used);
      const bytes = (of: (path: string) => boolean) =>
        proxy.requests
          .filter(({ path }) => of(path))
          .reduce((sum, { sent, received }) => sum + sent + received, 0);
      return {
        seconds: (performance.now() - begun) / 1000,
        cpu: (user + system) / 1e6,
        requests: proxy.requests.length,
        bytes: bytes((path) => !path.includes("/tags/list")),
        tagBytes: bytes((path) => path.includes("/tags/list")),
      };
    };

    const reader = open();
    const cold = await cost(() => refresh(reader, { list: true }));
    const nothing = await cost(() => refresh(reader));
    const publisher = open();
    await refresh(publisher, { list: true });
    // What was written is forced to disk half a second later.
    await Bun.sleep(1_000);
    const publish = await cost(() => publishOnce(publisher, entries));
    const after = await cost(() => refresh(reader, { list: true }));
    const gc = await timeGc(bench, cache, cost);
    return {
      entries: entries.toLocaleString("en"),
      "generations of 3,000 paths, and tags": String(written.generations.length + 1),
      "tag list": `${(cold.tagBytes / KIB).toFixed(1)} KiB`,
      "root, unpacked": `${(written.indexTextBytes / MIB).toFixed(1)} MiB`,
      "root, as stored": `${(written.indexBytes / MIB).toFixed(2)} MiB`,
      "an entry of it": `${Math.round(written.indexBytes / entries)} B`,
      "local index": `${(indexBytes(reader.database.path) / MIB).toFixed(0)} MiB`,
      "first load": `${cold.requests} requests, ${cold.seconds.toFixed(2)} s, ${cold.cpu.toFixed(2)} s of CPU`,
      "refresh, nothing new": `${nothing.requests} request, ${(nothing.bytes / KIB).toFixed(2)} KiB`,
      "publish, 10 new of 3,000: written":
        `${publish.requests} requests, ${(publish.bytes / KIB).toFixed(0)} KiB, ` +
        `${publish.seconds.toFixed(2)} s`,
      "refresh after it": `${(after.bytes / KIB).toFixed(1)} KiB beside the tag list, ${after.seconds.toFixed(2)} s`,
      "gc, dry run, no local index": gc,
    };
  } finally {
    await cleanup.run();
  }
}

/** Of its tables and its layers. */
function indexBytes(path: string): number {
  const folder = layersFolder(path);
  const layers = readdirSync(folder).map((name) => statSync(join(folder, name)).size);
  return layers.reduce((sum, size) => sum + size, statSync(path).size);
}

/** Commits a closure of which the cache has all but a few paths, and folds it. */
async function publishOnce(publisher: TestParty, entries: number): Promise<void> {
  const known = Math.min(CLOSURE, entries) - NEW;
  const lines = Array.from({ length: known + NEW }, (_, at) => benchEntry(at < known ? at : entries + at));
  lines.sort((a, b) => (a.storeHash < b.storeHash ? -1 : 1));
  const result = await new GenerationWriter(publisher, {}).commit(
    testRecord(lines, publisher.host, { source: "https://github.com/bench/bench#new" }),
    lines,
    [],
  );
  if (!("committed" in result)) throw new Error("blobs are missing");
  await foldOrWarn(publisher);
}

async function timeGc(
  bench: Bench,
  cache: string,
  cost: (work: () => Promise<unknown>) => Promise<{ seconds: number; requests: number }>,
): Promise<string> {
  let rss = 0;
  const { seconds, requests } = await cost(async () => {
    const { code, stderr, peakRss } = await bench.cli.run(["gc", "--dry-run", "--cache", cache]);
    if (code !== 0) throw new Error(`gc: status ${code}\n${stderr}`);
    rss = peakRss;
  });
  return `${requests} requests, ${seconds.toFixed(1)} s, ${Math.round(rss / MIB)} MiB`;
}

function printTable(columns: readonly Record<string, string>[]): void {
  const rows = Object.keys(columns[0] ?? {}).map((name) => [
    name,
    ...columns.map((column) => column[name] ?? ""),
  ]);
  for (const [place, cells] of rows.entries()) {
    console.log(`| ${cells.join(" | ")} |`);
    if (place === 0) console.log(`|${"---|".repeat(cells.length)}`);
  }
}

/** The stack of the root's layers by itself: publishes that each bring a few new lines, one after another. */
function describeStack(): string {
  const publishes = 100_000;
  const size = 4 * KIB;
  let stack: number[] = [];
  let written = 0;
  let most = 0;
  for (let count = 0; count < publishes; count++) {
    const keep = layersToKeep(stack, size);
    const top = size + stack.slice(keep).reduce((sum, layer) => sum + layer, 0);
    stack = [...stack.slice(0, keep), top];
    written += top;
    most = Math.max(most, stack.length);
  }
  return (
    `${publishes.toLocaleString("en")} publishes with as much news each: at most ${most} layers of the ` +
    `${MAX_LAYERS} allowed, each line written ${(written / (publishes * size)).toFixed(1)} times`
  );
}
