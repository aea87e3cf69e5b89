/**
 * A path that comes out differently on each machine, and one above it: whatever is published by whom, Nix takes the
 * closure that was signed.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Cli, type CliResult, openCli } from "../support/cli.ts";
import { lines } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix"], "several builds of a path", () => {
  let cli: Cli;
  let nix: TestNix;
  /** Roots of the two stores in which it was built. */
  let [first, second] = ["", ""];
  /** The path that comes out differently, and the one above it, whose content is the same each time. */
  let [p, t] = ["", ""];

  const publish = async (
    root: string,
    cache: string,
    paths: string[],
    ...more: string[]
  ): Promise<CliResult> => {
    const all = ["publish", ...paths, "--cache", cli.path(cache), "--upstream", "", "--json", ...more];
    return cli.run(all, { env: { ...storeVariables(nix), NIX_REMOTE: root } });
  };
  const signedBy = (key: string) => ["--signing-key-file", cli.path(`${key}.sec`)];
  const publicKey = (key: string) => readFile(cli.path(`${key}.pub`), "utf8");
  const contentOf = (root: string) => readFile(nix.realPath(p, root), "utf8");

  /** What `p` is for a client that trusts some keys and takes the closure of `t`. @throws with what Nix said */
  const substituted = async (cache: string, keys: readonly string[], ...flags: string[]): Promise<string> => {
    const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${Bun.randomUUIDv7()}`) };
    const server = await cli.serve(["--cache", cli.path(cache), "--upstream", "", ...flags], { env });
    try {
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      const trusted = (await Promise.all(keys.map(publicKey))).join(" ");
      const [copying, building] = [await openClient(nix, trusted), await openClient(nix, trusted)];
      await copying.copy(server.url, [t]);
      await copying.verify();
      await building.realise(server.url, [t]);
      expect(await building.paths()).toEqual([p, t].sort());
      expect(await contentOf(building.root)).toBe(await contentOf(copying.root));
      return await contentOf(copying.root);
    } finally {
      await server.stop();
    }
  };

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    for (const key of ["old-1", "new-1"])
      await cli.run(["keygen", key, cli.path(`${key}.sec`), cli.path(`${key}.pub`)]);
    const expression = `let
      p = ${shellDerivation("p", "head -c 30 /dev/urandom | od -A n -t x1 > $out")};
      t = ${shellDerivation("t", "echo $p > $out", "inherit p;")};
    in [ p t ]`;
    await writeFile(join(nix.folder, "two.nix"), expression);
    const build = async () => {
      const root = await nix.emptyStore();
      const args = ["--no-out-link", "--quiet", join(nix.folder, "two.nix")];
      [p = "", t = ""] = lines(await nix.run("nix-build", args, { env: { NIX_REMOTE: root } }));
      return root;
    };
    [first, second] = [await build(), await build()];
    expect(await contentOf(first)).not.toBe(await contentOf(second));
  });

  test("an unsigned build that another machine publishes later is left out, with what depends on it", async () => {
    expect((await publish(first, "a", [t], ...signedBy("old-1"))).code).toBe(0);
    const later = await publish(second, "a", [t]);
    expect(later.code).toBe(12);
    expect(later.stderr).toContain(`left out ${p}: the cache keeps another build of it`);
    expect(later.stderr).toContain("signed by old-1");
    expect(JSON.parse(later.stdout).leftOut.map(({ path }: { path: string }) => path)).toEqual([p, t]);
    expect(await substituted("a", ["old-1"])).toBe(await contentOf(first));
  });

  test("one that stands in the cache, and was made later, does not hide the signed one", async () => {
    expect((await publish(first, "b", [t], ...signedBy("old-1"))).code).toBe(0);
    expect((await publish(second, "b-other", [p])).code).toBe(0);
    expect((await cli.run(["copy", cli.path("b-other"), cli.path("b")])).code).toBe(0);
    expect(await substituted("b", ["old-1"])).toBe(await contentOf(first));
    const verified = await cli.run(["verify", "--cache", cli.path("b"), "--upstream", ""]);
    expect({ code: verified.code, stderr: verified.stderr }).toMatchObject({ code: 0 });
  });

  test("a signature replaces what was there unsigned", async () => {
    expect((await publish(second, "c", [p])).code).toBe(0);
    expect((await publish(first, "c", [t], ...signedBy("old-1"))).code).toBe(0);
    expect(await substituted("c", ["old-1"])).toBe(await contentOf(first));
  });

  test("a new key takes over what the old one has signed by restating it", async () => {
    expect((await publish(first, "d", [t], ...signedBy("old-1"))).code).toBe(0);
    expect((await publish(first, "d", [t], ...signedBy("new-1"))).code).toBe(0);
    for (const key of ["old-1", "new-1"]) expect(await substituted("d", [key])).toBe(await contentOf(first));
  });

  test("a new key's other build is left out, and replaces the old one's where that is asked for", async () => {
    expect((await publish(first, "e", [t], ...signedBy("old-1"))).code).toBe(0);
    expect((await publish(second, "e", [t], ...signedBy("new-1"))).code).toBe(12);
    expect(await substituted("e", ["old-1"])).toBe(await contentOf(first));
    await expect(substituted("e", ["new-1"])).rejects.toThrow("lacks a");

    expect((await publish(second, "e", [t], ...signedBy("new-1"), "--replace-signed")).code).toBe(0);
    expect(await substituted("e", ["new-1"])).toBe(await contentOf(second));
    expect(await substituted("e", ["old-1", "new-1"])).toBe(await contentOf(second));
    // Who trusts the old key alone says so to serve.
    const trusting = ["--trusted-public-key", await publicKey("old-1")];
    expect(await substituted("e", ["old-1"], ...trusting)).toBe(await contentOf(first));
  });

  test("the server passes over a cache that has a path unsigned for one that has it signed", async () => {
    expect((await publish(second, "f", [p])).code).toBe(0);
    expect((await publish(first, "g", [t], ...signedBy("old-1"))).code).toBe(0);
    expect(await substituted("f", ["old-1"], "--cache", cli.path("g"))).toBe(await contentOf(first));
  });

  test("replacing needs a key", async () => {
    const refused = await publish(second, "a", [t], "--replace-signed");
    expect({ code: refused.code, stderr: refused.stderr }).toEqual({
      code: 2,
      stderr: expect.stringContaining("--replace-signed: got no signing key, expected one"),
    });
  });
});
