/** `nixcache copy`: from the real docker-registry to a folder, to another registry, and within one by mounts. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { IMAGE_CONFIG } from "../../src/oci/manifest.ts";
import { openCacheStore } from "../support/audit.ts";
import { layoutBlob } from "../support/cache-files.ts";
import { type Cli, type CliResult, openCli } from "../support/cli.ts";
import { randomPlan } from "../support/fault-plan.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { IMPATIENT } from "../support/hostile.ts";
import { downloadAll, type Served } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { choices } from "../support/seed-choices.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let other: TestRegistry;
let paths: string[];
let root: string;
/** The generation that has all paths. */
let whole: string;
/** What the cache serves that everything is copied from. */
let original: Map<string, Served>;
let cache: string;
let count = 0;

/** On a machine that knows none of the caches. */
const anew = () => ({ env: { NIXCACHE_INDEX_DIR: cli.path(`index-${++count}`) } });

async function served(reference: string): Promise<Map<string, Served>> {
  const server = await cli.serve(["--cache", reference, "--upstream", ""], anew());
  try {
    await server.get("/_refresh", { method: "POST" });
    return await downloadAll(server, paths, nix);
  } finally {
    await server.stop();
  }
}

/** Fails with what it said when it does not end with `code`. */
async function reportOf(run: Promise<CliResult>, code = 0) {
  const result = await run;
  if (result.code !== code) throw new Error(`status ${result.code}, expected ${code}:\n${result.stderr}`);
  return { ...JSON.parse(result.stdout), stderr: result.stderr, peakRss: result.peakRss };
}

const copy = (from: string, to: string, ...args: string[]) =>
  cli.run(["copy", from, to, "--json", ...args], anew());

const tagsOf = async (reference: string) => (await openCacheStore(reference).listTags()).sort();

/** The name of the generation. */
async function publish(to: string, ...args: string[]): Promise<string> {
  const common = ["--cache", to, "--upstream", "", "--signing-key-file", cli.path("s"), "--json"];
  const { generation } = await reportOf(
    cli.run(["publish", ...args, ...common], { env: storeVariables(nix) }),
  );
  return generation;
}

describeWith(["nix", "registry"], "copy", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    other = cleanup.add(await startRegistry());
    cache = `${registry.host}/owner/repo/nix-cache`;
    await cli.run(["keygen", "copy-1", cli.path("s"), cli.path("p")]);
    const closure = await buildClosure(nix, { paths: 30, seed: 21 });
    const file = join(nix.folder, "random");
    await writeRandomFile(file, 20 * MIB, 4);
    const large = (await nix.run("nix-store", ["--add", file])).trim();
    // Small NARs in packs, a large one in parts, and a generation that restates the lines of another.
    await publish(cache, closure.root);
    await publish(cache, large, "--part-size", "4M");
    whole = await publish(cache, closure.root, large);
    root = closure.root;
    paths = [...closure.paths, large];
    original = await served(cache);
  });

  test("from a registry to a folder and on to another registry, from which Nix takes everything", async () => {
    const folder = cli.path("air-gap");
    const far = `${other.host}/far/away`;
    const first = await reportOf(copy(cache, folder));
    expect(first).toMatchObject({ from: cache, to: folder, present: 0, damaged: [], blobs: { mounted: 0 } });
    expect(first.copied.length).toBe(3);
    expect(first.blobs.bytesSent).toBeGreaterThan(20 * MIB);
    const second = await reportOf(copy(folder, far));
    expect(second.copied).toEqual(first.copied);
    expect(second.blobs).toEqual(first.blobs);

    const segments = (tags: string[]) => tags.filter((tag) => /^(seg|hold|nixcache)-/.test(tag));
    expect(segments(await tagsOf(far))).toEqual(segments(await tagsOf(cache)));
    for (const tag of await tagsOf(cache))
      expect(await openCacheStore(far).statManifest(tag)).toBe(await openCacheStore(cache).statManifest(tag));
    expect(await served(folder)).toEqual(original);
    expect(await served(far)).toEqual(original);

    const key = (await Bun.file(cli.path("p")).text()).trim();
    const client = await openClient(nix, key);
    const server = await cli.serve(["--cache", far, "--upstream", ""], anew());
    await client.copy(server.url, [root]);
    await client.realise(server.url, paths);
    expect(await client.paths()).toEqual([...paths].sort());
    await client.verify();
    await server.stop();

    // What nothing needs is not there: a collector takes nothing.
    await other.collectGarbage({ untagged: true });
    expect(await served(far)).toEqual(original);
    const verified = await cli.run(["verify", "--cache", far, "--upstream", "", "--deep"], anew());
    expect(verified).toMatchObject({ code: 0 });
  });

  test("within a registry by mounts: not a byte of a blob is sent", async () => {
    const proxy = await startFaultProxy({ registry: registry.host });
    try {
      const [from, to] = [`${proxy.host}/owner/repo/nix-cache`, `${proxy.host}/mounted`];
      const report = await reportOf(copy(from, to));
      expect(report.copied.length).toBe(3);
      expect(report.blobs).toMatchObject({ sent: 0, bytesSent: 0, present: 0 });
      expect(report.blobs.bytesMounted).toBeGreaterThan(20 * MIB);
      // The config of the manifest that asks how strict the registry is.
      const uploads = proxy.log.filter(
        ({ method, path, query }) =>
          ["PUT", "PATCH", "POST"].includes(method) &&
          path.includes("/blobs/") &&
          !decodeURIComponent(query).includes(IMAGE_CONFIG.digest),
      );
      expect(uploads.reduce((sum, { received }) => sum + received, 0)).toBe(0);
      expect(uploads.filter(({ query }) => query.includes("mount=")).length).toBe(report.blobs.mounted);
      // Index layers alone: what their entries name must be held; and the root's, once, for the fold.
      const read = proxy.log.filter(({ path, method }) => method === "GET" && path.includes("/blobs/"));
      const least = 3 + (await layersOf(cache, "nixcache-index")).length;
      // One more whole and a range of it, by which each of the first generations sees that it can be read back.
      expect(read.length).toBeWithin(least + 2, least + 6 + 1);
      expect(await served(to)).toEqual(original);
    } finally {
      await proxy.close();
    }
  });

  test("that is repeated sends nothing; what is new goes after it, alone", async () => {
    const source = cli.path("growing");
    await publish(source, root);
    const proxy = await startFaultProxy({ registry: other.host });
    try {
      const to = `${proxy.host}/repeated`;
      await reportOf(copy(source, to));
      const writes = () => proxy.log.filter(({ method }) => !["GET", "HEAD"].includes(method)).length;
      const before = writes();
      const again = await reportOf(copy(source, to));
      expect(again).toMatchObject({ copied: [], present: 1, blobs: { sent: 0 } });
      // A machine that does not know the registry asks once how strict it is.
      const probe = proxy.log.filter(
        ({ method, path }) => method === "PUT" && path.includes("/manifests/sha256:"),
      );
      expect(probe.length).toBe(2);
      expect(writes() - before).toBe(1);

      await publish(source, ...paths);
      const more = await reportOf(copy(source, to));
      expect(more).toMatchObject({ present: 1, blobs: { mounted: 0 } });
      expect(more.copied.length).toBe(1);
      expect(more.blobs.bytesSent).toBeGreaterThan(20 * MIB);
      expect(more.blobs.bytesSent).toBeLessThan(21 * MIB);
      expect(await served(to)).toEqual(await served(source));
    } finally {
      await proxy.close();
    }
  });

  test("killed at any request goes on with the next run, and uploads no blob twice", async () => {
    const draw = choices("copy killed");
    const requests = await startFaultProxy({ registry: other.host });
    await reportOf(copy(cache, `${requests.host}/counted`));
    const total = requests.log.length;
    await requests.close();
    for (let round = 0; round < 6; round++) {
      const proxy = await startFaultProxy({ registry: other.host });
      try {
        const to = `${proxy.host}/killed-${round}`;
        const at = 2 + draw.below(total - 2);
        const run = cli.start(["copy", cache, to], anew());
        const end = draw.one(["before", "after"] as const);
        proxy[end] = ({ number }: { number: number }) => {
          if (number === at) run.kill();
          return undefined;
        };
        const { code } = await run.result;
        [proxy.before, proxy.after] = [() => undefined, () => {}];
        await reportOf(copy(cache, to));
        expect(await served(to)).toEqual(original);
        const stored = proxy.log
          .filter(
            ({ method, path, done, number }) =>
              method === "PUT" && path.includes("/blobs/") && done && number,
          )
          .map(({ query }) => new URLSearchParams(query).get("digest") ?? "")
          .filter((digest) => digest !== IMAGE_CONFIG.digest);
        const twice = stored.filter((digest, i) => stored.indexOf(digest) !== i);
        // The root's layers may have been folded anew; a NAR's blob is never sent again once it was stored.
        const nars = new Set((await layersOf(cache)).map(({ digest }) => digest as string));
        expect([at, code, twice.filter((digest) => nars.has(digest))]).toEqual([at, code, []]);
      } finally {
        await proxy.close();
      }
    }
  }, 240_000);

  test("to a registry that refuses artifact types serves the same", async () => {
    const proxy = await startFaultProxy({ registry: other.host, refusesArtifactTypes: 400 });
    try {
      const to = `${proxy.host}/plain`;
      expect((await reportOf(copy(cache, to))).copied.length).toBe(3);
      expect(await served(to)).toEqual(original);
      expect(await reportOf(copy(cache, to))).toMatchObject({ copied: [], present: 3 });
    } finally {
      await proxy.close();
    }
  });

  test("with a rate limit, lost answers and broken transfers on both sides serves the same", async () => {
    const { seed } = choices("copy faults");
    const plan = () => randomPlan({ seed, probability: 0.08 });
    const [from, to] = [
      await startFaultProxy({ registry: registry.host, plan: plan(), redirects: true }),
      await startFaultProxy({ registry: other.host, plan: plan() }),
    ];
    try {
      const env = { ...IMPATIENT, ...anew().env, NIXCACHE_RETRY_ATTEMPTS: "30" };
      const args = ["copy", `${from.host}/owner/repo/nix-cache`, `${to.host}/faulty`, "--json"];
      await reportOf(cli.run(args, { env }));
      expect([...from.log, ...to.log].some(({ fault }) => fault !== undefined)).toBe(true);
      expect(await served(`${other.host}/faulty`)).toEqual(original);
    } finally {
      await from.close();
      await to.close();
    }
  }, 240_000);

  test("of blobs that are large needs little memory, by whatever way", async () => {
    const file = join(nix.folder, "huge");
    await writeRandomFile(file, 400 * MIB, 9);
    const huge = (await nix.run("nix-store", ["--add", file])).trim();
    await rm(file);
    const [folder, back] = [cli.path("huge"), cli.path("back")];
    const away = `${other.host}/huge`;
    await publish(folder, huge);
    const most = 200 * MIB;
    const up = await reportOf(copy(folder, away));
    expect(up.blobs.bytesSent).toBeGreaterThan(400 * MIB);
    const down = await reportOf(copy(away, back));
    const across = await reportOf(copy(folder, cli.path("across")));
    for (const { peakRss } of [up, down, across]) expect(peakRss).toBeLessThan(most);
    expect(down.blobs).toEqual(up.blobs);
    const verified = await cli.run(["verify", "--cache", back, "--upstream", "", "--deep"], anew());
    expect(verified).toMatchObject({ code: 0 });
    for (const name of [folder, back, cli.path("across")]) await rm(name, { recursive: true });
  }, 240_000);

  test("of one generation is that one", async () => {
    const to = cli.path("one");
    const report = await reportOf(copy(cache, to, "--generation", whole));
    expect(report.copied).toEqual([whole]);
    expect(await served(to)).toEqual(original);
  });

  test("of a cache that is damaged brings what is whole, and says what is not", async () => {
    const [source, to] = [cli.path("damaged"), cli.path("from-damaged")];
    const first = await layersOf(source, `seg-${await publish(source, root)}`);
    const second = await layersOf(source, `seg-${await publish(source, ...paths)}`);
    const own = second.filter(({ digest }) => !first.some((layer) => layer.digest === digest));
    const broken = own.toSorted((a, b) => b.size - a.size)[0]?.digest as string;
    const blob = layoutBlob(source, broken);
    const bytes = await Bun.file(blob).bytes();
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
    await Bun.write(blob, bytes);
    const report = await reportOf(copy(source, to), 12);
    expect(report).toMatchObject({ damaged: [{ reason: expect.stringContaining(broken) }] });
    expect(report.copied.length).toBe(1);
    expect(report.stderr).toContain("1 generation of");
    expect(await openCacheStore(to).statBlob(broken as never)).toBeUndefined();
    // The same to a registry, which checks for itself what it gets.
    expect(await reportOf(copy(source, `${other.host}/from-damaged`), 12)).toMatchObject({ damaged: [{}] });
  });

  test.each<[string, () => string[], number, RegExp]>([
    ["one cache alone", () => [cache], 2, /copy takes two caches/],
    ["a cache and itself", () => [cli.path("x"), `oci:${cli.path("x")}`], 2, /two different caches/],
    ["a cache that is not there", () => [cli.path("nowhere"), cli.path("y")], 17, /has no generations/],
    ["a generation that is none", () => [cache, cli.path("y"), "--generation", "x"], 2, /--generation/],
    ["a third argument", () => [cache, cli.path("y"), "z"], 2, /unexpected argument/],
    ["what is no reference", () => ["x", cli.path("y")], 5, /is no cache reference/],
    ["a registry that is not there", () => ["127.0.0.1:1/a/b", cli.path("y")], 8, /127.0.0.1:1/],
  ])("not of %s", async (_, args, code, says) => {
    const env = { ...anew().env, NIXCACHE_RETRY_ATTEMPTS: "1" };
    const result = await cli.run(["copy", ...args()], { env });
    expect(result).toMatchObject({ code, stderr: expect.stringMatching(says) });
  });

  test("of a cache of the old format says what to do first", async () => {
    const source = cli.path("old");
    await publish(source, root);
    const index = join(source, "index.json");
    const json = await Bun.file(index).json();
    const [entry] = json.manifests;
    entry.annotations["org.opencontainers.image.ref.name"] = "cache-index";
    await Bun.write(index, JSON.stringify({ ...json, manifests: [entry] }));
    const result = await cli.run(["copy", source, cli.path("y")], anew());
    expect(result).toMatchObject({ code: 17, stderr: expect.stringMatching(/nixcache-oci.*\n.*adopts/) });
  });
});

/** Digests and sizes that the manifests under a tag, or all segments and holds, name. */
async function layersOf(reference: string, only?: string): Promise<{ digest: string; size: number }[]> {
  const store = openCacheStore(reference);
  const tags = only ? [only] : (await store.listTags()).filter((tag) => /^(seg|hold)-/.test(tag));
  const manifests = await Promise.all(tags.map((tag) => store.readManifest(tag)));
  return manifests.flatMap((manifest) =>
    typeof manifest === "object" ? JSON.parse(new TextDecoder().decode(manifest.bytes)).layers : [],
  );
}
