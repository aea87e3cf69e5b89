/** Generations that are signed, with the executable: what who was given the key takes, and what is told of the others. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Cli, openCli } from "../support/cli.ts";
import { lines } from "../support/derivation.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix"], "signed generations", () => {
  let cli: Cli;
  let nix: TestNix;
  let [ours, theirs] = ["", ""];
  let key = "";

  const run = (args: string[]) => cli.run(args, { env: storeVariables(nix) });
  const cacheOf = (name: string) => ["--cache", cli.path(name)];
  const publish = (cache: string, path: string, ...more: string[]) =>
    run(["publish", path, ...cacheOf(cache), "--upstream", "", ...more]);
  const signed = () => ["--signing-key-file", cli.path("own.sec")];
  const trusting = () => ["--trusted-public-key", key];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    await cli.run(["keygen", "own-1", cli.path("own.sec"), cli.path("own.pub")]);
    key = (await readFile(cli.path("own.pub"), "utf8")).trim();
    const one = (name: string) => `(${shellDerivation(name, `echo ${name} > $out`)})`;
    const both = `[ ${one("ours")} ${one("theirs")} ]`;
    await writeFile(join(nix.folder, "both.nix"), both);
    const built = await nix.run("nix-build", ["--no-out-link", "--quiet", join(nix.folder, "both.nix")]);
    [ours = "", theirs = ""] = lines(built);
  });

  test("serve, list and verify with the key pass over what somebody else has published, and say so", async () => {
    expect((await publish("a", ours, ...signed())).code).toBe(0);
    expect((await publish("a", theirs)).code).toBe(0);
    const server = await cli.serve([...cacheOf("a"), "--upstream", "", ...trusting()]);
    try {
      // The index of the publish is here, and has not seen the second one.
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      expect((await server.get(`/${hashPart(ours)}.narinfo`)).status).toBe(200);
      expect((await server.get(`/${hashPart(theirs)}.narinfo`)).status).toBe(404);
      expect(await (await server.get("/_status")).json()).toMatchObject({
        index_generations: 1,
        unsigned_generations: 1,
      });
    } finally {
      await server.stop();
    }
    const listed = await run(["list", ...cacheOf("a"), ...trusting()]);
    expect(listed.stdout).toContain("ours");
    expect(listed.stdout).not.toContain("theirs");
    expect(listed.stderr).toContain("is passed over, as none of the given keys has signed it");
    const all = await run(["list", ...cacheOf("a"), ...trusting(), "--allow-unsigned-generations"]);
    expect(all.stdout).toContain("theirs");
    const verified = await run(["verify", ...cacheOf("a"), "--upstream", "", ...trusting()]);
    expect(verified.code).toBe(0);
    expect(verified.stderr).toContain("a generation is signed by none of the given keys");
  });

  test("sign takes in what the key has signed before, and copy leaves the rest", async () => {
    expect((await publish("b", ours, ...signed(), "--allow-unsigned-generations")).code).toBe(0);
    expect((await publish("b", theirs)).code).toBe(0);
    const first = await run(["sign", ...cacheOf("b"), ...signed()]);
    expect({ code: first.code, stderr: first.stderr }).toEqual({
      code: 12,
      stderr: expect.stringContaining("is left unsigned: 1 of its 1 paths are not signed by the key"),
    });
    const copied = await run(["copy", cli.path("b"), cli.path("c"), ...trusting()]);
    expect(copied.code).toBe(0);
    expect(copied.stderr).toContain("left out, as none of the given keys has signed them");
    const listed = await run(["list", ...cacheOf("c")]);
    expect(listed.stdout).toContain("ours");
    expect(listed.stdout).not.toContain("theirs");
  });

  test("whoever takes only signed generations writes no others", async () => {
    for (const args of [
      ["publish", ours],
      ["pin", "p", ours],
      ["unpin", "p"],
      ["verify", "--repair"],
      ["serve", "--writable"],
    ]) {
      const refused = await run([...args, ...cacheOf("a"), ...trusting()]);
      expect({ args, code: refused.code, stderr: refused.stderr }).toEqual({
        args,
        code: 2,
        stderr: expect.stringContaining("got --trusted-public-key and no signing key"),
      });
    }
  });
});
