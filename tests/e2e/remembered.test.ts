/** What the real Nix remembers of a cache keeps it from what is there now: doctor sees it, and what it says helps. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "../../src/setup/check.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { shellDerivation } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let server: CliServer;
let cache: string;

/** What Nix says of a path that the cache has not, by version. */
const NOT_THERE = /is not valid|no substituter that can build it/;

/** Nix as the user has it. */
function machine(): Record<string, string> {
  const { HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME } = cli.env as Record<string, string>;
  return { ...nix.env, ...{ HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME } } as Record<string, string>;
}

/** @returns what it told */
async function publish(path: string, ...args: string[]): Promise<string> {
  const given = ["publish", path, "--cache", cache, "--upstream", "", ...args];
  const { code, stderr } = await cli.run(given, { env: storeVariables(nix) });
  expect(code).toBe(0);
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return stderr;
}

/** `nix copy` as the user runs it, into an empty store. @returns what Nix said against it */
async function copy(path: string, ...options: string[]): Promise<string | undefined> {
  const env = { ...machine(), NIX_REMOTE: await nix.emptyStore() };
  const strict = ["--option", "require-sigs", "true"];
  return nix.run("nix", ["copy", "--from", server.url, ...strict, ...options, path], { env }).then(
    () => undefined,
    (error: Error) => error.message,
  );
}

async function remembered(env: Record<string, string> = {}): Promise<Finding | undefined> {
  const args = ["doctor", "--cache", cache, "--port", new URL(server.url).port, "--json"];
  const { stdout } = await cli.run(args, { env: { ...machine(), ...env } });
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  return findings.find(({ check }) => check === "remembered");
}

describeWith(["nix"], "what Nix remembers", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    cache = cli.path("cache");
    await cli.run(["keygen", "remembered-1", cli.path("secret.key"), cli.path("public.key")]);
    const other = await nix.build(shellDerivation("other", "echo other > $out"));
    await cli.run(
      ["publish", other, "--cache", cache, "--upstream", "", "--signing-key-file", cli.path("secret.key")],
      { env: storeVariables(nix) },
    );
    server = await cli.serve(["--cache", cache, "--upstream", ""]);
    const port = new URL(server.url).port;
    expect((await cli.run(["use", cache, "--mode", "user", "--port", port], { env: machine() })).code).toBe(
      0,
    );
  });

  test("a path that was published without a signature first, and then with one", async () => {
    const path = await nix.build(shellDerivation("signed-later", "echo later > $out"));
    expect(await publish(path)).not.toContain("narinfo-cache");
    expect(await copy(path)).toContain("signature");
    expect(await remembered()).toMatchObject({ state: "ok" });
    expect(await publish(path, "--signing-key-file", cli.path("secret.key"))).toContain(
      "1 path had no signature before: a Nix that was refused them before remembers that for up to 30 days",
    );
    // It is there, and Nix refuses it still.
    expect(await (await server.get(`/${path.slice(11, 43)}.narinfo`)).text()).toContain("Sig: remembered-1:");
    expect(await copy(path)).toContain("signature");

    const found = await remembered();
    expect(found).toMatchObject({
      state: "wrong",
      text: `Nix remembers 1 path of ${server.url} without a signature by a key that it trusts, for up to 30 days more, such as ${path}`,
    });
    const [, option = "", file = ""] =
      /with --option (\S+) 0, or remove (\S+)\.$/.exec(found?.mend ?? "") ?? [];
    expect(readFileSync(file).subarray(0, 15).toString()).toBe("SQLite format 3");
    expect(file).toStartWith(join(machine().XDG_CACHE_HOME ?? "", "nix"));
    // Whoever has Nix forget at once has nothing to fear.
    const forgetful = { NIX_CONFIG: "narinfo-cache-positive-ttl = 0" };
    expect(await remembered(forgetful)).toMatchObject({ state: "ok" });
    expect(await copy(path, "--option", option, "0")).toBeUndefined();
    expect(await remembered()).toMatchObject({ state: "ok" });
    expect(await copy(path)).toBeUndefined();
  });

  test("a path that was asked for before it was published", async () => {
    const path = await nix.build(shellDerivation("published-later", "echo later > $out"));
    expect(await copy(path)).toMatch(NOT_THERE);
    await publish(path, "--signing-key-file", cli.path("secret.key"));
    expect(await copy(path)).toMatch(NOT_THERE);
    const found = await remembered();
    expect(found).toMatchObject({
      state: "wrong",
      text: expect.stringMatching(
        /^Nix remembers that \S+ lacks 1 path that it has now, for up to \d+ min more/,
      ),
    });
    expect(found?.mend).toContain("--option narinfo-cache-negative-ttl 0, or remove /");
    expect(await copy(path, "--option", "narinfo-cache-negative-ttl", "0")).toBeUndefined();
    expect(await remembered()).toMatchObject({ state: "ok" });
  });

  test("is not changed by the question", async () => {
    const folder = join(machine().XDG_CACHE_HOME ?? "", "nix");
    const files = () => new Bun.Glob("binary-cache-*").scanSync(folder);
    const before = [...files()].map((name) => [name, Bun.hash(readFileSync(join(folder, name)))]);
    await remembered();
    expect([...files()].map((name) => [name, Bun.hash(readFileSync(join(folder, name)))])).toEqual(before);
    expect(before.length).toBeGreaterThan(0);
  });
});
