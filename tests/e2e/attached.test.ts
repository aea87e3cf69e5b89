/** Files beside narinfos on real parts: published, served, and read by the real Nix. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { CONTENT_ADDRESSED, contentAddressed, recordsDependents } from "../support/content-addressed.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let server: CliServer;
let publicKey: string;
/** A small path, a large one, and one that is content-addressed. */
let small: string;
let large: string;
let top: string;
let expression: string;

const publish = (...args: string[]) =>
  cli.run(
    [
      "publish",
      "--cache",
      cli.path("cache"),
      "--upstream",
      "",
      "--json",
      ...args,
      "--signing-key-file",
      cli.path("s"),
    ],
    { env: storeVariables(nix) },
  );

const hashOf = (path: string) => path.slice("/nix/store/".length, "/nix/store/".length + 32);

/** Variables of a Nix that has nothing and remembers nothing. */
async function emptyNix() {
  const root = await nix.emptyStore();
  return { NIX_REMOTE: root, XDG_CACHE_HOME: `${root}-cache` };
}

describeWith(["nix"], "files beside narinfos", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    await cli.run(["keygen", "attached-1", cli.path("s"), cli.path("p")]);
    publicKey = await readFile(cli.path("p"), "utf8");
    small = await nix.build(
      shellDerivation(
        "small",
        "echo log of small; mkdir -p $out/bin; echo 1 > $out/bin/run; ln -s bin $out/link",
      ),
    );
    large = await nix.build(
      shellDerivation(
        "large",
        "for i in $(seq 30000); do echo line $i; done; mkdir $out; head -c 3000000 /dev/zero > $out/zeros",
      ),
    );
    expression = join(nix.folder, "ca.nix");
    await Bun.write(expression, contentAddressed());
    top = (await nix.run("nix-build", [...CONTENT_ADDRESSED, "--no-out-link", expression])).trim();
    expect(await publish(small, large, top)).toMatchObject({ code: 0 });
    server = await cli.serve(["--cache", cli.path("cache"), "--upstream", ""], {
      env: { NIXCACHE_INDEX_DIR: cli.path("index") },
    });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  });

  test("a listing is the JSON that nix copy writes, and nix store ls reads it", async () => {
    const folder = join(nix.folder, "binary-cache");
    await nix.run("nix", ["copy", "--to", `file://${folder}?write-nar-listing=1`, small, large, top]);
    for (const path of [small, large, top]) {
      const response = await server.get(`/${hashOf(path)}.ls`);
      expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/json"]);
      expect(await response.json()).toEqual(await Bun.file(join(folder, `${hashOf(path)}.ls`)).json());
      const head = await server.get(`/${hashOf(path)}.ls`, { method: "HEAD" });
      expect(head.headers.get("content-length")).toBe(response.headers.get("content-length"));
    }
    const args = ["store", "ls", "--store", server.url, "--recursive", small];
    const listed = await nix.run("nix", args, { env: await emptyNix() });
    expect(listed.trim().split("\n").sort()).toEqual(["./bin", "./bin/run", "./link"]);
    expect((await server.get(`/${"0".repeat(32)}.ls`)).status).toBe(404);
  });

  test("nix log prints the build log, by --store and by substituters", async () => {
    for (const path of [small, large, top]) {
      const expected = await nix.run("nix-store", ["--read-log", path]);
      expect(expected).not.toBe("");
      for (const args of [
        ["--store", server.url],
        ["--option", "substituters", server.url],
      ]) {
        expect(await nix.run("nix", ["log", ...args, path], { env: await emptyNix() })).toBe(expected);
      }
    }
    expect((await server.get("/log/0123456789abcdfghijklmnpqrsvwxyz-none.drv")).status).toBe(404);
  });

  test("a store that has nothing substitutes a content-addressed derivation by its realisation", async () => {
    // That the signatures of realisations are good is a contract test: Nix 2.8 does not look at them here.
    const options = ["--max-jobs", "0", "--option", "substituters", server.url];
    const trust = ["--option", "require-sigs", "true", "--option", "trusted-public-keys", publicKey];
    const args = [...CONTENT_ADDRESSED, "--no-out-link", ...options, ...trust, expression];
    const env = await emptyNix();
    expect((await nix.run("nix-build", args, { env })).trim()).toBe(top);
    expect(await nix.run("cat", [`${nix.realPath(top, env.NIX_REMOTE)}/x`])).toContain("-dependency");
  });

  test("a realisation is the file that nix copy writes, with our signature", async () => {
    const folder = join(nix.folder, "binary-cache-ca");
    await nix.run("nix", [...CONTENT_ADDRESSED, "copy", "--to", `file://${folder}`, "-f", expression]);
    const files = [...new Bun.Glob("*.doi").scanSync(join(folder, "realisations"))];
    expect(files.length).toBe(recordsDependents() ? 2 : 1);
    for (const file of files) {
      for (const name of [file, file.replace("!", "%21")]) {
        const response = await server.get(`/realisations/${name}`);
        expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/json"]);
        const { signatures, ...fields } = (await response.json()) as { signatures: string[] };
        const theirs = await Bun.file(join(folder, "realisations", file)).json();
        expect({ ...fields, signatures: [] }).toEqual(theirs);
        expect(signatures).toEqual([expect.stringMatching(/^attached-1:/)]);
      }
    }
    expect((await server.get(`/build-trace-v2/${hashOf(top)}-top.drv/out.doi`)).status).toBe(404);
  });

  test("the cache is clean byte for byte, and publishing again changes nothing", async () => {
    const verified = await cli.run(["verify", "--deep", "--cache", cli.path("cache"), "--upstream", ""]);
    expect(verified).toMatchObject({ code: 0 });
    const again = await publish(small, large, top);
    expect(JSON.parse(again.stdout)).toMatchObject({ generation: null, bytes: { sent: 0 } });
  });
});
