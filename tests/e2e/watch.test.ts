/**
 * `nixcache publish --watch`: what is finished is in the cache before the build ends, however the run ends.
 *
 * Builds wait on named pipes, so that a test decides when each goes on.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeSync, constants, existsSync, openSync, readdirSync, readFileSync, writeSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { planGc } from "../../src/gc/plan.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { auditCache, openCacheStore } from "../support/audit.ts";
import { type Cli, type CliRun, openCli, type RunOptions } from "../support/cli.ts";
import { flakeText, lines } from "../support/derivation.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { party, TestHost } from "../support/protocol.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const DAY_MS = 86_400_000;
const WITHIN_MS = 60_000;
const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let pipes: string;
let key: { secret: string; public: string };
let count = 0;

/** Waits for a state of the world, up to a deadline. */
async function until<T>(what: string, look: () => Promise<T | undefined> | T | undefined): Promise<T> {
  for (const deadline = Date.now() + WITHIN_MS; Date.now() < deadline; await Bun.sleep(50)) {
    const found = await look();
    if (found !== undefined) return found;
  }
  throw new Error(`waited in vain for ${what}`);
}

/** A pipe that a build waits on. What a test that failed has left is released in the end. */
async function pipe(name: string): Promise<{ file: string; release(): Promise<true> }> {
  const file = join(pipes, name);
  await nix.run("mkfifo", [file]);
  const tryRelease = () => {
    try {
      // Fails while nobody reads.
      const fd = openSync(file, constants.O_WRONLY | constants.O_NONBLOCK);
      writeSync(fd, "go on\n");
      closeSync(fd);
      return true;
    } catch {
      return undefined;
    }
  };
  cleanup.add({ close: async () => void tryRelease() });
  return { file, release: () => until(`a reader of ${name}`, tryRelease) };
}

/** `fast` refers to a text; `middle` and `last` wait, each on its own pipe. All are built side by side. */
async function derivations(name: string) {
  const [first, second] = [await pipe(`${name}-first`), await pipe(`${name}-second`)];
  const scripts = {
    fast: `mkdir $out; ln -s \${builtins.toFile "${name}-text" "words of ${name}"} $out/text`,
    middle: `read line < ${first.file}; echo ${name} middle > $out`,
    last: `read line < ${second.file}; echo ${name} last > $out`,
  };
  return { first, second, scripts: Object.entries(scripts) };
}

async function project() {
  const name = `p${++count}`;
  const { first, second, scripts } = await derivations(name);
  const file = `${nix.folder}/${name}.nix`;
  const attributes = scripts.map(
    ([part, script]) => `${part} = ${shellDerivation(`${name}-${part}`, script)};`,
  );
  await writeFile(file, `{ ${attributes.join("\n")} }`);
  const drvs = lines(await nix.run("nix-instantiate", ["--quiet", file]));
  const outputs = lines(await nix.run("nix-store", ["--query", "--outputs", ...drvs]));
  const path = (part: string) => outputs.find((output) => output.endsWith(`-${name}-${part}`)) as string;
  return {
    ...{ first, second, fast: path("fast"), middle: path("middle"), last: path("last") },
    command: [
      ...["nix-build", "--no-out-link", "--max-jobs", "4", "--quiet", file],
      ...["--option", "extra-sandbox-paths", pipes],
    ],
  };
}

const newCache = () => `${registry.host}/watch/cache-${++count}`;

/** The same as a flake. */
async function flake() {
  const name = `f${++count}`;
  const { first, second, scripts } = await derivations(name);
  const folder = join(nix.folder, name);
  await mkdir(folder);
  const packages = scripts.map(([part, script]) => `${part} = sh "${name}-${part}" ''${script}'' { };`);
  await writeFile(join(folder, "flake.nix"), flakeText(`packages.${SYSTEM} = { ${packages.join("\n")} };`));
  return { first, second, folder, name };
}

function publishFlake(cache: string, folder: string): CliRun {
  const args = ["publish", "--flake", folder, "--watch", "--cache", cache, "--upstream", ""];
  return cli.start([...args, "--signing-key-file", key.secret, "--json"], {
    env: {
      ...storeVariables(nix),
      ...{ HOME: nix.env.HOME, XDG_CACHE_HOME: nix.env.XDG_CACHE_HOME },
      NIX_CONFIG: `${nix.env.NIX_CONFIG ?? ""}\nextra-sandbox-paths = ${pipes}\nmax-jobs = 4`,
      NIXCACHE_INDEX_DIR: cli.path(`index-${++count}`),
    },
  });
}

const begun = (cache: string) =>
  until("a first generation", async () => ((await segments(cache)).length > 0 ? true : undefined));

/** Names of generations have seconds, and chance orders them within one. */
async function anotherSecond(cache: string): Promise<void> {
  const last = Math.max(...(await generations(cache)).map(({ record }) => Date.parse(record.time)));
  await until("another second", () => (Date.now() > last + 1_000 ? true : undefined));
}

function watch(cache: string, command: readonly string[], env: RunOptions["env"] = {}): CliRun {
  const args = ["publish", "--watch", "--cache", cache, "--upstream", "", "--signing-key-file", key.secret];
  const variables = {
    ...storeVariables(nix),
    HOME: nix.env.HOME,
    NIXCACHE_INDEX_DIR: cli.path(`index-${++count}`),
  };
  return cli.start([...args, "--json", "--", ...command], { env: { ...variables, ...env } });
}

/** Tags of committed generations, in their order. */
async function segments(cache: string): Promise<string[]> {
  return (await openCacheStore(cache).listTags()).filter((tag) => tag.startsWith("seg-")).sort();
}

/** The blobs of NARs that a generation names. */
async function blobsOf(cache: string, tag: string): Promise<string[]> {
  const manifest = await openCacheStore(cache).readManifest(tag);
  if (typeof manifest !== "object") throw new Error(`${tag} is gone`);
  return decodeManifest(manifest.bytes, tag)
    .layers.slice(1)
    .map(({ digest }) => digest);
}

async function generations(cache: string) {
  using reader = party(openCacheStore(cache), new TestHost(Date.now()));
  await refresh(reader, { list: true });
  return reader.database.view.generations();
}

/** The real Nix takes these paths out of the cache; those of `absent` are not there. */
async function substitutes(
  cache: string,
  paths: readonly string[],
  absent: readonly string[],
): Promise<void> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++count}`) };
  const server = await cli.serve(["--cache", cache, "--upstream", ""], { env });
  try {
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    const client = await openClient(nix, key.public);
    await client.realise(server.url, paths);
    await client.verify();
    expect(await client.paths()).toEqual(expect.arrayContaining([...paths]));
    for (const path of absent) expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(404);
  } finally {
    await server.stop();
  }
}

async function openParts(): Promise<void> {
  cli = cleanup.add(await openCli());
  nix = cleanup.add(await openNix()).value;
  registry = cleanup.add(await startRegistry());
  pipes = join(nix.folder, "pipes");
  await mkdir(pipes);
  key = { secret: cli.path("secret"), public: cli.path("public") };
  await cli.run(["keygen", "watch-1", key.secret, key.public]);
  key.public = readFileSync(key.public, "utf8").trim();
}

describeWith(["nix", "registry"], "publish --watch -- COMMAND", () => {
  beforeAll(() => (cli === undefined ? openParts() : undefined));

  test("killed by SIGKILL while it builds: what was finished is served", async () => {
    const { first, second, fast, middle, last, command } = await project();
    const cache = newCache();
    const run = watch(cache, command);
    await begun(cache);
    run.kill();
    // The command outlives it, as it does wherever only one process is killed, and keeps its output open.
    for (const { release } of [first, second]) await release();
    expect((await run.result).code).toBe(137);
    await substitutes(cache, [fast], [middle, last]);
    expect((await generations(cache)).map(({ record }) => record.partial)).toEqual([true]);
  }, 120_000);

  test("ended by SIGTERM: what was finished since the last generation is committed too", async () => {
    const { first, fast, middle, last, command } = await project();
    const cache = newCache();
    const run = watch(cache, command);
    await begun(cache);
    await first.release();
    await until("a valid path", async () => {
      const args = ["--check-validity", "--print-invalid", middle];
      return (await nix.run("nix-store", args)) === "" ? true : undefined;
    });
    const asked = Date.now();
    process.kill(run.pid, "SIGTERM");
    const { code, stderr } = await run.result;
    expect({ code, stderr }).toMatchObject({ code: 130 });
    expect(stderr).toContain("stopped by SIGTERM");
    // Actions would kill it then.
    expect(Date.now() - asked).toBeLessThan(10_000);
    await substitutes(cache, [fast, middle], [last]);
    expect((await generations(cache)).map(({ record }) => record.partial)).toEqual([true, true]);
  }, 120_000);

  test("to its end: the last generation has everything, replaces the others, and sends nothing twice", async () => {
    const proxy = await startFaultProxy({ registry: registry.host });
    try {
      const { first, second, fast, middle, last, command } = await project();
      const name = `watch/whole-${++count}`;
      const cache = `${registry.host}/${name}`;
      const run = watch(`${proxy.host}/${name}`, command);
      await begun(cache);
      await anotherSecond(cache);
      for (const { release } of [first, second]) await release();
      const { code, stdout, stderr } = await run.result;
      expect({ code, stderr }).toMatchObject({ code: 0 });
      // The command's own output comes first.
      const summary = JSON.parse(lines(stdout).at(-1) as string);
      expect(summary).toMatchObject({ paths: { closure: 4, restated: 0, uploaded: 4 }, leftOut: [] });

      const [partial, whole, ...others] = await generations(cache);
      expect(others).toEqual([]);
      expect(partial?.record).toMatchObject({ partial: true, entries: 2, roots: { [base(fast)]: fast } });
      expect(whole?.record.entries).toBe(4);
      expect(whole?.record.partial).toBeUndefined();
      expect(Object.values(whole?.record.roots ?? {}).sort()).toEqual([fast, middle, last].sort());
      const policy = { retentionMs: 30 * DAY_MS, keepLast: 1, keepBranches: [], dropBranches: [] };
      const { decisions } = planGc(await generations(cache), policy, Date.now() + 2 * DAY_MS);
      expect(decisions.map(({ ends, rule }) => ({ ends, rule }))).toEqual([
        { ends: true, rule: "partial" },
        { ends: false, rule: "retention" },
      ]);

      expect(uploadedTwice(proxy)).toEqual([]);
      expect((await auditCache(cache)).length).toBe(4);
      // The last generation names the pack of the first and its own.
      const [before = [], packs = []] = await Promise.all(
        (await segments(cache)).map((tag) => blobsOf(cache, tag)),
      );
      expect([before.length, packs.length]).toEqual([1, 2]);
      expect(packs).toEqual(expect.arrayContaining(before));
      expect(uploads(proxy)).toEqual(expect.arrayContaining(packs));
      await substitutes(cache, [fast, middle, last], []);
      for (const path of [fast, middle, last]) expect(queued()).not.toContain(path);
    } finally {
      await proxy.close();
    }
  }, 120_000);

  test("a registry that is down meanwhile costs nothing: the last publish has everything", async () => {
    const proxy = await startFaultProxy({ registry: registry.host });
    try {
      const { first, second, fast, middle, last, command } = await project();
      const name = `watch/down-${++count}`;
      const refused = Promise.withResolvers<void>();
      // Whether it can be written to is asked before; a round begins with the list of tags, with a page size and without.
      let lists = 0;
      proxy.plan = ({ path }) => {
        if (!path.endsWith("/tags/list")) return undefined;
        if (++lists === 2) refused.resolve();
        return { kind: "answer", name: "unavailable" };
      };
      const run = watch(`${proxy.host}/${name}`, command, { NIXCACHE_RETRY_ATTEMPTS: "1" });
      await refused.promise;
      proxy.plan = () => undefined;
      for (const { release } of [first, second]) await release();
      const { code, stderr } = await run.result;
      expect({ code, stderr }).toMatchObject({ code: 0 });
      expect(stderr).toContain("what is finished is not published yet");
      expect((await generations(`${registry.host}/${name}`)).map(({ record }) => record.partial)).toEqual([
        undefined,
      ]);
      await substitutes(`${registry.host}/${name}`, [fast, middle, last], []);
    } finally {
      await proxy.close();
    }
  }, 120_000);

  test("what was seen and not published is not lost with the process", async () => {
    const proxy = await startFaultProxy({ registry: registry.host });
    try {
      const { first, second, fast, middle, last, command } = await project();
      const name = `watch/lost-${++count}`;
      // Nothing can be committed.
      proxy.before = ({ method }) => (method === "GET" || method === "HEAD" ? undefined : "drop");
      const run = watch(`${proxy.host}/${name}`, command);
      await until("an entry in the queue", () => (queued().some((path) => path === fast) ? true : undefined));
      run.kill();
      for (const { release } of [first, second]) await release();
      expect((await run.result).code).toBe(137);
      expect(await segments(`${registry.host}/${name}`)).toEqual([]);

      proxy.before = () => undefined;
      expect(await watch(`${proxy.host}/${name}`, ["true"]).result).toMatchObject({ code: 0 });
      await substitutes(`${registry.host}/${name}`, [fast], [middle, last]);
      for (const path of [fast, middle, last]) expect(queued()).not.toContain(path);
    } finally {
      await proxy.close();
    }
  }, 120_000);

  describe("the exit status", () => {
    const built = (name: string) => [
      ...["nix-build", "--no-out-link", "--quiet", "--expr", shellDerivation(name, `echo ${name} > $out`)],
    ];
    const quoted = (argv: readonly string[]) =>
      argv.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");

    test("is the command's when it failed, and what it built is published", async () => {
      const cache = newCache();
      const script = `${quoted(built("before-failure"))}; exit 7`;
      expect(await watch(cache, ["sh", "-c", script]).result).toMatchObject({ code: 7 });
      expect((await auditCache(cache)).map(base)).toEqual([expect.stringMatching(/-before-failure$/)]);
    }, 60_000);

    test("is the command's also when nothing can be published", async () => {
      const script = `${quoted(built("nowhere"))}; exit 9`;
      const env = { NIXCACHE_RETRY_ATTEMPTS: "1" };
      const { code, stderr } = await watch("127.0.0.1:1/nothing/here", ["sh", "-c", script], env).result;
      expect({ code, stderr }).toMatchObject({ code: 9 });
      expect(stderr).toContain("not published, the next run tries again");
    }, 60_000);

    test("is publish's when the command was fine", async () => {
      const env = { NIXCACHE_RETRY_ATTEMPTS: "1" };
      expect(await watch("127.0.0.1:1/nothing/there", built("fine"), env).result).toMatchObject({ code: 8 });
    }, 60_000);

    test.each<[string, string[], number, RegExp]>([
      ["a signal that ended the command", ["sh", "-c", "kill -KILL $$"], 137, /nothing to upload/],
      ["a command that is not there", ["no-such-command"], 2, /cannot run "no-such-command"/],
      ["no command", [], 2, /--watch takes a command/],
    ])("of %s", async (_, command, code, says) => {
      const result = await watch(newCache(), command).result;
      expect(result).toMatchObject({ code });
      expect(result.stderr).toMatch(says);
    });
  });
});

describeWith(["nix", "registry"], "publish --flake --watch", () => {
  beforeAll(() => (cli === undefined ? openParts() : undefined));

  test("killed by SIGKILL while it builds: what was finished is served, and the next run replaces it", async () => {
    const { first, second, folder, name } = await flake();
    const cache = newCache();
    const run = publishFlake(cache, folder);
    await begun(cache);
    run.kill();
    const [killed] = await generations(cache);
    expect(killed?.record).toMatchObject({ partial: true, entries: 2 });
    const [fast] = Object.values(killed?.record.roots ?? {});
    expect(fast).toEndWith(`-${name}-fast`);
    await substitutes(cache, [fast as string], []);
    // Nix outlives it.
    for (const { release } of [first, second]) await release();
    expect((await run.result).code).toBe(137);

    await anotherSecond(cache);
    const { code, stdout, stderr } = await publishFlake(cache, folder).result;
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(JSON.parse(stdout)).toMatchObject({
      paths: { closure: 4, restated: 2, uploaded: 2 },
      leftOut: [],
    });
    const policy = { retentionMs: 30 * DAY_MS, keepLast: 1, keepBranches: [], dropBranches: [] };
    const { decisions } = planGc(await generations(cache), policy, Date.now() + 2 * DAY_MS);
    expect(decisions.map(({ name, ends, rule }) => ({ name, ends, rule }))).toContainEqual({
      ...{ name: killed?.name as string, ends: true, rule: "partial" },
    });
    const whole = decisions.filter(({ record }) => !record.partial);
    expect(whole.map(({ ends, record }) => [ends, record.entries])).toEqual([[false, 4]]);
    await substitutes(cache, Object.values(whole[0]?.record.roots ?? {}), []);
  }, 120_000);

  test("ended by SIGTERM: what was finished is committed, and the exit status says why", async () => {
    const { folder } = await flake();
    const cache = newCache();
    const run = publishFlake(cache, folder);
    await begun(cache);
    process.kill(run.pid, "SIGTERM");
    const { code, stderr } = await run.result;
    expect({ code, stderr }).toMatchObject({ code: 130 });
    expect(stderr).toContain("stopped by SIGTERM");
    expect((await generations(cache)).map(({ record }) => record.partial)).toEqual([true]);
  }, 120_000);
});

const base = (path: string) => path.slice("/nix/store/".length);

/** The digest of each upload that came to its end. */
function uploads({ log }: FaultProxy): string[] {
  return log.flatMap(({ method, query, done }) => {
    const digest = new URLSearchParams(query).get("digest");
    return method === "PUT" && done && digest !== null ? [digest] : [];
  });
}

function uploadedTwice(proxy: FaultProxy): string[] {
  const all = uploads(proxy);
  return all.filter((digest, i) => all.indexOf(digest) !== i);
}

/** What the queues of all caches hold. */
function queued(): string[] {
  const state = cli.path("xdg-state", "nixcache");
  if (!existsSync(state)) return [];
  return readdirSync(state).flatMap((queue) => {
    const folder = join(state, queue, "built");
    return readdirSync(folder).flatMap((file) => lines(readFileSync(join(folder, file), "utf8")));
  });
}
