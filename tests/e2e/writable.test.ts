/** `serve --writable` and the real `nix copy --to`: what was stored is stored, whatever happens next. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir, stat } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { type Cli, type CliServer, openCli, type Variables } from "../support/cli.ts";
import { CONTENT_ADDRESSED, contentAddressed, recordsDependents } from "../support/content-addressed.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, nixAtLeast, shellDerivation, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { openClient } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const MIB = 1024 ** 2;
const TOKEN = "a token of 22 letters".replaceAll(" ", "-");

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let publicKey: string;
let caches = 0;

/** Waits for a failing registry are short; those between two commits are the server's own. */
const BRISK: Variables = { NIXCACHE_RETRY_ATTEMPTS: "1", NIXCACHE_CONNECT_TIMEOUT: "2s" };

/** A server that accepts uploads, with the cache's index loaded. */
async function serveWritable(cache: string, args: readonly string[] = [], env: Variables = {}) {
  const upstream = args.includes("--upstream") ? [] : ["--upstream", ""];
  const all = ["--cache", cache, ...upstream, "--writable", "--signing-key-file", cli.path("s")];
  const server = await cli.serve([...all, ...args], { env: { ...BRISK, ...env } });
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

/** `nix copy` by a client that remembers nothing. @throws with what Nix said */
async function copyTo(server: CliServer, paths: readonly string[], query = "", args: readonly string[] = []) {
  const env = { XDG_CACHE_HOME: join(nix.folder, `client-${crypto.randomUUID()}`) };
  await nix.run("nix", ["copy", ...args, "--to", `${server.url}${query}`, ...paths], { env });
}

/** A fresh store gets the paths from a read-only server that has never seen the cache, and all is right. */
async function expectReadable(cache: string, paths: readonly string[]): Promise<void> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(`reader-${crypto.randomUUID()}`) };
  const reader = await cli.serve(["--cache", cache, "--upstream", ""], { env });
  expect((await reader.get("/_refresh", { method: "POST" })).status).toBe(200);
  const client = await openClient(nix, publicKey);
  await client.copy(reader.url, paths);
  await client.verify();
  for (const path of paths) expect(await client.paths()).toContain(path);
  await reader.stop();
  expect(await cli.run(["verify", "--cache", cache, "--deep"])).toMatchObject({ code: 0 });
}

async function writing(server: CliServer) {
  const status = (await (await server.get("/_status")).json()) as { writing: Record<string, unknown> };
  return status.writing;
}

async function generations(cache: string): Promise<number> {
  const [host, name] = [cache.slice(0, cache.indexOf("/")), cache.slice(cache.indexOf("/") + 1)];
  const { tags } = (await (await fetch(`http://${host}/v2/${name}/tags/list`)).json()) as { tags: string[] };
  return tags.filter((tag) => tag.startsWith("seg-")).length;
}

const newCache = () => `${registry.host}/writable-${++caches}`;

const build = (name: string) =>
  nix.build(shellDerivation(name, `echo building ${name}; echo content of ${name} > $out`));

describeWith(["nix", "registry"], "serve --writable", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    await cli.run(["keygen", "writable-1", cli.path("s"), cli.path("p")]);
    publicKey = await Bun.file(cli.path("p")).text();
  });

  test("takes every compression that Nix offers, answers at once, and commits when it stops", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const paths: string[] = [];
    for (const compression of ["none", "xz", "bzip2", "gzip", "zstd", "br", "lz4", "lzip"]) {
      const script = `mkdir $out; seq 20000 > $out/${compression}`;
      const path = await nix.build(shellDerivation(`c-${compression}`, script));
      await copyTo(server, [path], `?compression=${compression}&write-nar-listing=1`);
      const narinfo = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
      expect(narinfo).toContain(`\nCompression: ${compression}\n`);
      expect(narinfo).toContain("\nSig: writable-1:");
      expect(await (await server.get(`/${hashPart(path)}.ls`)).json()).toMatchObject({ version: 1 });
      paths.push(path);
    }
    // From 2.32 on what stands beside NARs can be compressed as well; older versions know no such settings.
    for (const encoding of nixAtLeast("2.32") ? ["gzip", "br", "zstd"] : []) {
      const path = await build(`encoded-${encoding}`);
      const derivation = (await nix.run("nix-store", ["--query", "--deriver", path])).trim();
      const query = ["narinfo", "ls", "log"].map((kind) => `${kind}-compression=${encoding}`).join("&");
      await copyTo(server, [path], `?${query}&write-nar-listing=1`);
      await nix.run("nix", ["store", "copy-log", "--to", `${server.url}?${query}`, derivation]);
      expect(await (await server.get(`/${hashPart(path)}.ls`)).json()).toMatchObject({ version: 1 });
      const log = await server.get(`/log/${derivation.slice("/nix/store/".length)}`);
      expect(await log.text()).toBe(`building encoded-${encoding}\n`);
      paths.push(path);
    }
    // From the journal, before anything is committed.
    const client = await openClient(nix, publicKey);
    await client.copy(server.url, paths);
    await client.verify();
    expect(await server.stop()).toBe(0);
    expect(await generations(cache)).toBe(1);
    await expectReadable(cache, paths);
  });

  test("two clients at once with closures that overlap: few generations, all is there", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const one = await buildClosure(nix, { paths: 120, seed: 11 });
    const two = await nix.build(
      shellDerivation(
        "second-root",
        `mkdir $out; ln -s ${one.root} $out/one`,
        `one = ${JSON.stringify(one.root)};`,
      ),
    );
    await Promise.all([copyTo(server, [one.root]), copyTo(server, [two, ...one.paths.slice(0, 50)])]);
    await server.stop();
    expect(await generations(cache)).toBeLessThanOrEqual(2);
    await expectReadable(cache, [...one.paths]);
  });

  test("killed between the answer and the commit: the next one commits", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const { root, paths } = await buildClosure(nix, { paths: 20, seed: 12 });
    await registry.stop();
    await copyTo(server, [root]);
    await endAtOnce(server);
    await registry.start();
    expect(await generations(cache).catch(() => 0)).toBe(0);
    const next = await serveWritable(cache);
    expect((await next.get(`/${hashPart(root)}.narinfo`)).status).toBe(200);
    await next.stop();
    await expectReadable(cache, paths);
    expect(await filesBelow(cli.path("xdg-state", "nixcache"))).toEqual([]);
  });

  test("killed at any moment of a commit, again and again: all that was accepted arrives", async () => {
    const cache = newCache();
    const accepted: string[] = [];
    for (const round of [1, 2, 3, 4, 5]) {
      const server = await serveWritable(cache);
      const { root, paths } = await buildClosure(nix, { paths: 12, seed: 20 + round, big: round * 400_000 });
      await copyTo(server, [root], "?compression=none");
      accepted.push(...paths);
      // It stops, and so commits; some commits are over by then, and some have not begun.
      await Promise.race([server.stop(), Bun.sleep(round * 20)]);
      await endAtOnce(server);
    }
    const server = await serveWritable(cache);
    await server.stop();
    await expectReadable(cache, accepted);
    expect(await filesBelow(cli.path("xdg-state", "nixcache"))).toEqual([]);
  });

  test("with the registry down uploads go on, and are committed once it is back", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const { root, paths } = await buildClosure(nix, { paths: 10, seed: 13 });
    await registry.stop();
    await copyTo(server, [root]);
    while ((await writing(server)).last_error === null) await Bun.sleep(100);
    expect((await writing(server)).pending_paths).toBe(10);
    const client = await openClient(nix, publicKey);
    await client.copy(server.url, [root]);
    await registry.start();
    while ((await writing(server)).pending_paths !== 0) await Bun.sleep(100);
    expect(await writing(server)).toMatchObject({ pending_bytes: 0, last_error: null });
    expect((await server.get(`/${hashPart(root)}.narinfo`)).status).toBe(200);
    await server.stop();
    await expectReadable(cache, paths);
  });

  test("a log and realisations come with what they belong to", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const file = join(nix.folder, "writable-ca.nix");
    await Bun.write(file, contentAddressed());
    const top = (await nix.run("nix-build", [...CONTENT_ADDRESSED, "--no-out-link", file])).trim();
    await copyTo(server, ["-f", file], "", [...CONTENT_ADDRESSED]);
    const plain = shellDerivation("logged", "echo the log of it; echo > $out");
    const built = await nix.build(plain);
    const derivation = (await nix.run("nix-store", ["--query", "--deriver", built])).trim();
    await copyTo(server, [built]);
    await nix.run("nix", ["store", "copy-log", "--to", server.url, derivation]);
    await server.stop();
    await expectReadable(cache, [top, built]);
    const reader = await cli.serve(["--cache", cache, "--upstream", ""]);
    await reader.get("/_refresh", { method: "POST" });
    const log = await reader.get(`/log/${derivation.slice("/nix/store/".length)}`);
    expect(await log.text()).toBe("the log of it\n");
    // By its realisation alone: this Nix has nothing and builds nothing.
    const root = await nix.emptyStore();
    const env = { NIX_REMOTE: root, XDG_CACHE_HOME: `${root}-cache` };
    const options = ["--max-jobs", "0", "--option", "substituters", reader.url];
    const trust = ["--option", "require-sigs", "true", "--option", "trusted-public-keys", publicKey];
    const args = [...CONTENT_ADDRESSED, "--no-out-link", ...options, ...trust, file];
    expect((await nix.run("nix-build", args, { env })).trim()).toBe(top);
    const folder = join(nix.folder, "writable-ca");
    await nix.run("nix", ["copy", ...CONTENT_ADDRESSED, "--to", `file://${folder}`, "-f", file]);
    const realisations = [...new Bun.Glob("*.doi").scanSync(join(folder, "realisations"))];
    expect(realisations).toHaveLength(recordsDependents() ? 2 : 1);
    for (const name of realisations) {
      const { signatures, ...fields } = (await (await reader.get(`/realisations/${name}`)).json()) as {
        signatures: string[];
      };
      const theirs = await Bun.file(join(folder, "realisations", name)).json();
      expect({ ...fields, signatures: [] }).toEqual(theirs);
      expect(signatures).toEqual([expect.stringMatching(/^writable-1:/)]);
    }
    await reader.stop();
  });

  test("a signature that is added later is one more", async () => {
    const cache = newCache();
    const server = await serveWritable(cache);
    const path = await build("signed-later");
    await copyTo(server, [path]);
    const secret = join(nix.folder, "later.sec");
    await cli.run(["keygen", "later-1", secret, join(nix.folder, "later.pub")]);
    await nix.run("nix", ["store", "sign", "--store", server.url, "--key-file", secret, path]);
    await server.stop();
    const reader = await cli.serve(["--cache", cache, "--upstream", ""]);
    await reader.get("/_refresh", { method: "POST" });
    const narinfo = await (await reader.get(`/${hashPart(path)}.narinfo`)).text();
    expect(narinfo.match(/^Sig: (writable|later)-1:/gm)).toHaveLength(2);
    await reader.stop();
  });

  test("what an upstream has need not be sent, and may be referred to", async () => {
    const [base, cache] = [await build("upstream-base"), newCache()];
    const upstream = await serveWritable(newCache());
    await copyTo(upstream, [base]);
    const server = await serveWritable(cache, ["--upstream", upstream.url]);
    const top = await nix.build(
      shellDerivation("upstream-top", "ln -s $base $out", `base = builtins.storePath ${base};`),
    );
    await copyTo(server, [top]);
    expect(await writing(server)).toMatchObject({ pending_paths: 1 });
    await server.stop();
    await upstream.stop();
  });

  test("an upload that breaks off leaves nothing, and the server goes on", async () => {
    const server = await serveWritable(newCache());
    const file = `nar/${"0".repeat(52)}.nar`;
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    const head = `PUT /${file} HTTP/1.1\r\nHost: ${hostname}\r\nContent-Length: 5000000\r\n\r\n`;
    await new Promise((resolve) =>
      socket.write(Buffer.concat([Buffer.from(head), Buffer.alloc(MIB)]), resolve),
    );
    // It has begun to write, so there is something to be left.
    const drafts = async () =>
      (await filesBelow(cli.path("xdg-state", "nixcache"))).filter((name) => /drafts/.test(name));
    while ((await drafts()).length === 0) await Bun.sleep(5);
    socket.destroy();
    while ((await drafts()).length > 0) await Bun.sleep(5);
    expect((await server.get(`/${file}`, { method: "HEAD" })).status).toBe(404);
    const path = await build("after-a-break");
    await copyTo(server, [path]);
    expect(await writing(server)).toMatchObject({ pending_paths: 1 });
    await server.stop();
  });

  test("a NAR of 1 GiB passes in little memory", async () => {
    const folder = cli.path("large-cache");
    const server = await serveWritable(folder);
    const script = `mkdir $out; truncate -s ${1024 * MIB} $out/zeros`;
    const path = await nix.build(shellDerivation("large", script));
    const before = server.peakRss();
    await copyTo(server, [path], "?compression=none");
    await server.stop();
    expect(server.peakRss()).toBeLessThan(250 * MIB);
    expect(server.peakRss() - before).toBeLessThan(150 * MIB);
    await expectReadable(folder, [path]);
  }, 240_000);

  describe("who may write", () => {
    const token = { NIXCACHE_WRITE_TOKEN: TOKEN };

    test("beyond loopback nobody without a token", async () => {
      const args = ["serve", "--writable", "--listen", "0.0.0.0", "--port", "0", "--upstream", ""];
      const result = await cli.run([...args, "--cache", cli.path("none")]);
      expect(result.code).toBe(2);
      expect(result.stderr).toContain("NIXCACHE_WRITE_TOKEN");
    });

    test.each<[string, string]>([
      ["nothing in a token", ""],
      ["a short token", "1234567"],
      ["a token of two lines", "12345678\n12345678"],
    ])("%s is refused and not shown", async (_, text) => {
      await Bun.write(cli.path("token"), text);
      const args = ["serve", "--writable", "--write-token-file", cli.path("token"), "--port", "0"];
      const result = await cli.run([...args, "--cache", cli.path("none"), "--upstream", ""]);
      expect(result.code).toBe(2);
      expect(result.stderr).toContain("8 or more characters");
      expect(result.stderr).not.toContain("1234567");
    });

    test("a token's file that is not there is named, with who named it", async () => {
      const args = ["serve", "--writable", "--port", "0", "--upstream", "", "--cache", cli.path("none")];
      const env = { NIXCACHE_WRITE_TOKEN_FILE: cli.path("no-token") };
      const { code, stderr } = await cli.run(args, { env });
      expect(code).toBe(2);
      expect(stderr).toContain(`NIXCACHE_WRITE_TOKEN_FILE: cannot read ${cli.path("no-token")}`);
    });

    test.each(["--write-token-file", "--signing-key-file"])(
      "%s without --writable is refused",
      async (flag) => {
        const args = ["serve", "--cache", cli.path("none"), "--upstream", "", "--port", "0", flag, "x"];
        expect(await cli.run(args)).toMatchObject({ code: 2, stdout: "" });
      },
    );

    test("Nix with the token in its netrc file may, others are told why not", async () => {
      const cache = newCache();
      const server = await serveWritable(cache, ["--listen", "0.0.0.0"], token);
      const local = { ...server, url: server.url.replace("0.0.0.0", "127.0.0.1") };
      const path = await build("with-token");
      const netrc = join(nix.folder, "netrc");
      await Bun.write(netrc, "machine 127.0.0.1 login nobody password another-token\n");
      const args = ["--option", "netrc-file", netrc];
      await expect(copyTo(local, [path])).rejects.toThrow(/401.*|writing needs the token/);
      await expect(copyTo(local, [path], "", args)).rejects.toThrow(/401/);
      await Bun.write(join(nix.folder, "netrc-right"), `machine 127.0.0.1 login nobody password ${TOKEN}\n`);
      await copyTo(local, [path], "", ["--option", "netrc-file", join(nix.folder, "netrc-right")]);
      await server.stop();
      expect(server.log()).not.toContain(TOKEN);
      await expectReadable(cache, [path]);
    });

    test("a refused upload ends at once, with the reason", async () => {
      const server = await serveWritable(newCache(), [], { NIXCACHE_JOURNAL_SIZE: "1M" });
      const path = await nix.build(shellDerivation("too-large", "head -c 3000000 /dev/urandom > $out"));
      await expect(copyTo(server, [path], "?compression=none")).rejects.toThrow(/413|no room/);
      await server.stop();
    });

    test("the journal is for its owner alone", async () => {
      const folder = cli.path("xdg-state", "nixcache");
      for (const name of await readdir(folder)) {
        for (const path of [name, join(name, "journal.sqlite")]) {
          expect([path, (await stat(join(folder, path))).mode & 0o77]).toEqual([path, 0]);
        }
      }
    });
  });
});

/** SIGKILL, unless it has ended. */
async function endAtOnce(server: CliServer): Promise<void> {
  try {
    process.kill(server.pid, "SIGKILL");
  } catch {
    // It has ended.
  }
  await server.stop();
}

/** Files of journals that hold uploads. */
async function filesBelow(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true });
  return names.filter((name) => /\/(blobs|drafts)\/./.test(name));
}
