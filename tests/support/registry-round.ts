/**
 * One whole round of a cache on a registry, with the compiled binary and the real Nix: publish, again, four at once,
 * serve, verify, gc, the registry's own collection, copies, and a killed publish. The tests go on from each other.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import type { Digest } from "../../src/oci/digest.ts";
import type { Store } from "../../src/oci/store.ts";
import { realHost } from "../contract/oci/helpers.ts";
import { auditCache, namedDigests } from "./audit.ts";
import { type Cli, type CliResult, openCli, type RunOptions } from "./cli.ts";
import { type FaultProxy, type LoggedRequest, startFaultProxy } from "./fault-proxy.ts";
import { downloadAll, type Served } from "./http-cache.ts";
import { Cleanup } from "./lease.ts";
import { openNix } from "./needs.ts";
import { buildClosure, type TestNix } from "./nix.ts";
import { commitNames, party, TestHost } from "./protocol.ts";
import { writeRandomFile } from "./random-file.ts";
import { logInTo, openStoreOn, type RegistryUnderTest } from "./registry-under-test.ts";
import { choices } from "./seed-choices.ts";
import { openClient, storeVariables } from "./substitute.ts";

export interface RoundRegistry extends RegistryUnderTest {
  /** Has it remove what no manifest names, where it is a program that can. */
  collectGarbage?(): Promise<void>;
  close(): Promise<void>;
}

export interface RoundOptions {
  /** Paths of the closure, one of them large. */
  readonly paths: number;
  /** Bytes of the large one, which do not compress. */
  readonly largeBytes: number;
  /** Takes what each step needed, for people to look at. */
  readonly requests?: (counts: Readonly<Record<string, number>>) => void;
}

const DAY_MS = 24 * 3_600_000;
const REPOSITORY = "owner/round/nix-cache";

export function describeRound(
  name: string,
  open: () => Promise<RoundRegistry>,
  { paths: count, largeBytes, requests }: RoundOptions,
): void {
  describe(`${name}: one whole round`, () => {
    const cleanup = new Cleanup();
    const counts: Record<string, number> = {};
    let cli: Cli;
    let nix: TestNix;
    let registry: RoundRegistry;
    let proxy: FaultProxy;
    let publicKey: string;
    let root: string;
    let large: string;
    let paths: readonly string[];
    let original: Map<string, Served>;
    let machines = 0;

    beforeAll(async () => {
      cli = cleanup.add(await openCli());
      nix = cleanup.add(await openNix()).value;
      registry = cleanup.add(await open());
      proxy = cleanup.add(await startFaultProxy({ registry: registry.host }));
      await logInTo(cli, registry.user, [registry.host, proxy.host]);
      await cli.run(["keygen", "round-1", cli.path("s"), cli.path("p")]);
      publicKey = await Bun.file(cli.path("p")).text();
      const closure = await buildClosure(nix, { paths: count - 1, seed: 40 });
      const file = join(nix.folder, "large");
      await writeRandomFile(file, largeBytes, 41);
      large = (await nix.run("nix-store", ["--add", file])).trim();
      root = closure.root;
      paths = [...closure.paths, large].sort();
    });
    afterAll(async () => {
      requests?.(counts);
      await cleanup.run();
    });

    /** A machine of its own: without a local index. */
    const anew = (more: RunOptions = {}): RunOptions => ({
      ...more,
      env: { ...storeVariables(nix), NIXCACHE_INDEX_DIR: cli.path(`machine-${++machines}`), ...more.env },
    });
    const behindProxy = (repository = REPOSITORY) => `${proxy.host}/${repository}`;
    const store = (repository = REPOSITORY): Store =>
      openStoreOn({ ...registry, host: proxy.host }, repository, realHost);

    const publishArgs = (cache: string, own: readonly string[]) => [
      ...["publish", ...own, "--cache", cache, "--upstream", ""],
      ...["--signing-key-file", cli.path("s"), "--json"],
    ];

    /** Runs a command, and keeps how many requests it took. @throws with what it said when it fails */
    const run = async (step: string, args: readonly string[], options = anew()) => {
      const from = proxy.log.length;
      const result = await cli.run(args, options);
      counts[step] = proxy.log.length - from;
      return succeeded(step, result);
    };

    const served = async (cache: string): Promise<Map<string, Served>> => {
      const server = await cli.serve(["--cache", cache, "--upstream", ""], anew());
      try {
        expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
        return await downloadAll(server, paths, nix);
      } finally {
        await server.stop();
      }
    };

    /** Two ways of the real Nix into empty stores that check signatures. */
    const substitute = async (step: string, cache: string): Promise<void> => {
      const from = proxy.log.length;
      const server = await cli.serve(["--cache", cache, "--upstream", ""], anew());
      try {
        await server.get("/_refresh", { method: "POST" });
        const copying = await openClient(nix, publicKey);
        await copying.copy(server.url, [root, large]);
        counts[step] = proxy.log.length - from;
        expect(await copying.paths()).toEqual([...paths]);
        await copying.verify();
        const realising = await openClient(nix, publicKey);
        await realising.realise(server.url, [root, large]);
        expect(await realising.paths()).toEqual([...paths]);
      } finally {
        await server.stop();
      }
    };

    test("publish, and again on the same machine and on another: nothing is left to upload", async () => {
      const machine = anew();
      const args = publishArgs(behindProxy(), [root, large]);
      const first = await run("publish", args, machine);
      expect(first.stderr).not.toContain("[warn]");
      expect(JSON.parse(first.stdout).paths).toMatchObject({ closure: count, uploaded: count });
      for (const [step, options] of [
        ["publish again", machine],
        ["publish again, elsewhere", anew()],
      ] as const) {
        const from = proxy.log.length;
        const again = await run(step, args, options);
        expect(JSON.parse(again.stdout)).toMatchObject({ generation: null, bytes: { nar: 0, sent: 0 } });
        expect(proxy.log.slice(from).filter(isWrite)).toEqual([]);
      }
      expect(await auditCache(store())).toEqual([...paths]);
    });

    test("serve: the real Nix takes everything, with signatures", async () => {
      await substitute("substitute", behindProxy());
      original = await served(behindProxy());
    });

    test("verify, and verify --deep, find nothing wrong", async () => {
      await run("verify", ["verify", "--cache", behindProxy(), "--upstream", ""]);
      await run("verify --deep", ["verify", "--cache", behindProxy(), "--upstream", "", "--deep"]);
    });

    test("four publishers at once: what each of them has published is there", async () => {
      const random = choices(`${name} four at once`);
      const repository = "owner/four/nix-cache";
      const wanted = Array.from({ length: 4 }, () => random.pick(paths, 1 + random.below(5)));
      const runs = wanted.map((own) => cli.run(publishArgs(behindProxy(repository), own), anew()));
      for (const result of await Promise.all(runs)) succeeded("one of four", result);
      const closure = await nix.run("nix-store", ["--query", "--requisites", ...wanted.flat()]);
      expect(await auditCache(store(repository))).toEqual([...new Set(closure.trim().split("\n"))].sort());
    });

    test("gc ends what is old and deletes it a day later, and the registry collects its blobs alone", async () => {
      const old = await publishLongAgo(store());
      const tagsBefore = await store().listTags();
      const gc = ["gc", "--cache", behindProxy()];
      const first = await run("gc", gc);
      expect(first.stderr).toContain("ended 1 generation");
      const later = await run("gc, a day later", gc, anew(aDayLater()));
      expect(later.stderr).toContain("deleted 1 generation that had ended before");
      const tags = await store().listTags();
      expect(tags.filter((tag) => tag.startsWith("dead-"))).toEqual([]);
      expect(tagsBefore.filter((tag) => !tags.includes(tag)).length).toBeGreaterThan(0);

      await registry.collectGarbage?.();
      if (registry.collectGarbage !== undefined) {
        for (const digest of old)
          expect([digest, await store().statBlob(digest)]).toEqual([digest, undefined]);
      }
      expect(await auditCache(store())).toEqual([...paths]);
      await run("verify after collecting", ["verify", "--cache", behindProxy(), "--upstream", "", "--deep"]);
      await substitute("substitute after collecting", behindProxy());
      expect(await served(behindProxy())).toEqual(original);
    });

    test("copy to a folder, back to another repository, and within the registry serves the same", async () => {
      const [folder, back, within] = [cli.path("folder"), "owner/back/nix-cache", "owner/within/nix-cache"];
      await run("copy to a folder", ["copy", behindProxy(), folder, "--json"]);
      expect(await served(folder)).toEqual(original);
      await run("copy from a folder", ["copy", folder, behindProxy(back), "--json"]);
      expect(await served(behindProxy(back))).toEqual(original);
      const copied = await run("copy within", ["copy", behindProxy(), behindProxy(within), "--json"]);
      const { blobs } = JSON.parse(copied.stdout);
      counts["blobs mounted"] = blobs.mounted;
      expect(await served(behindProxy(within))).toEqual(original);
      const again = await run("copy again", ["copy", behindProxy(), behindProxy(within), "--json"]);
      expect(JSON.parse(again.stdout)).toMatchObject({ copied: [], blobs: { bytesSent: 0 } });
      for (const cache of [folder, behindProxy(back), behindProxy(within)])
        succeeded("verify", await cli.run(["verify", "--cache", cache, "--upstream", "", "--deep"], anew()));
    });

    test("a publish killed at any request leaves what is whole, and the next one uploads no blob twice", async () => {
      const random = choices(`${name} killed`);
      for (let round = 0; round < 4; round++) {
        const repository = `owner/killed-${round}/nix-cache`;
        const args = publishArgs(behindProxy(repository), [root, large]);
        const [from, machine] = [proxy.log.length, anew()];
        const at = from + 1 + random.below(counts.publish as number);
        const killed = cli.start(args, machine);
        const when = random.one(["before", "after"] as const);
        const kill = async ({ number }: LoggedRequest) => {
          if (number !== at) return undefined;
          killed.kill();
          await killed.result;
          return "drop" as const;
        };
        if (when === "before") proxy.before = kill;
        else proxy.after = async (request) => void (await kill(request));
        const { code } = await killed.result;
        [proxy.before, proxy.after] = [() => undefined, () => {}];
        expect([0, 137]).toContain(code);
        const has = await auditCache(store(repository));
        expect([[], [...paths]]).toContainEqual(has);
        succeeded("after a kill", await cli.run(args, machine));
        expect(await auditCache(store(repository))).toEqual([...paths]);
        const named = await namedDigests(store(repository));
        const sent = proxy.log.slice(from).filter(isUploadDone).map(digestIn);
        const twice = sent.filter((digest, i) => sent.indexOf(digest) !== i && named.has(digest as Digest));
        expect([round, at - from, when, twice]).toEqual([round, at - from, when, []]);
      }
    });
  });
}

/** A generation of forty days ago with blobs of its own. @returns digests of those */
async function publishLongAgo(store: Store): Promise<Digest[]> {
  const before = await namedDigests(store);
  using publisher = party(store, new TestHost(Date.now() - 40 * DAY_MS, 7));
  await commitNames(publisher, ["long-ago", "longer-ago"], {});
  // Without what the fold has added, which is the root's and lives on.
  return [...(await namedDigests(store))].filter((digest) => !before.has(digest));
}

/** The sources with a clock that is more than a day ahead. */
function aDayLater(): RunOptions {
  const program = [process.execPath, "--preload", join(ROOT, "tests", "support", "clock.ts")];
  return {
    program: [...program, join(ROOT, "src", "main.ts")],
    env: { CLOCK_SKEW_MS: String(1.25 * DAY_MS) },
  };
}

function succeeded(step: string, result: CliResult): CliResult {
  if (result.code !== 0) throw new Error(`${step}: status ${result.code}\n${result.stderr}`);
  return result;
}

const isWrite = ({ method }: LoggedRequest) => method !== "GET" && method !== "HEAD";
const isUploadDone = ({ method, path, done }: LoggedRequest) =>
  method === "PUT" && path.includes("/blobs/") && done;
const digestIn = ({ query }: LoggedRequest) => new URLSearchParams(query).get("digest") ?? "";
