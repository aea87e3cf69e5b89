/**
 * Nix before 2.4 is told that it is too old, and not taken for something that a person has done wrong. With
 * `bun run test:nix-versions bullseye` it is the real one, else a stand-in.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import type { Finding } from "../../src/setup/check.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { shellDerivation } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { hasNix, nixAtLeast } from "../support/nix.ts";
import { oldNix } from "../support/old-nix.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let env: Record<string, string>;
let cache: string;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  const real = hasNix() && !nixAtLeast("2.4");
  const path = real ? cli.env.PATH : `${await oldNix(cli.folder)}:${cli.env.PATH}`;
  env = { PATH: path ?? "", NIX_REMOTE: cli.path("store"), NIX_CONF_DIR: cli.path("conf") };
  await mkdir(cli.path("conf"));
  cache = cli.path("cache");
});

test("doctor says that it cannot unpack what the cache holds, and asks it nothing else", async () => {
  const { code, stdout } = await cli.run(["doctor", "--json", "--cache", cache], { env });
  expect(code).toBe(16);
  const { findings } = JSON.parse(stdout) as { findings: Finding[] };
  expect(findings.find(({ check }) => check === "nix")).toEqual({
    check: "nix",
    state: "wrong",
    text: "Nix 2.3.7 cannot unpack what the cache holds, which is compressed by zstd",
    mend: "Install Nix 2.4 or newer.",
  });
  const others = ["substituters", "keys", "require-sigs", "daemon", "accepts"];
  const found = findings.filter(({ check }) => others.includes(check));
  expect(found.map(({ state, text }) => `${state}: ${text}`)).toEqual(
    others.map(() => "skipped: this Nix is too old to be asked"),
  );
});

test("use says so too", async () => {
  const key = `old-1:${Buffer.alloc(32, 7).toString("base64")}`;
  const args = ["use", cache, "--mode", "user", "--trusted-public-key", key];
  const { code, stdout, stderr } = await cli.run(args, { env });
  expect({ code, stdout, stderr }).toMatchObject({
    code: 16,
    stdout: expect.stringMatching(/^wrong +nix +Nix 2\.3\.7 cannot unpack/m),
    stderr: expect.stringContaining("Nix will not use the cache as it is"),
  });
});

test.each([
  ["a flake", ["--flake", "."]],
  ["a file", ["--file", "default.nix"]],
])("publish cannot build %s with it", async (_, args) => {
  await writeFile(cli.path("cwd", "flake.nix"), "{ outputs = { self }: { }; }");
  await writeFile(cli.path("cwd", "default.nix"), shellDerivation("x", "echo > $out"));
  const { code, stderr } = await cli.run(["publish", ...args, "--cache", cache, "--upstream", ""], { env });
  expect(stderr).toContain("[error] this Nix is older than 2.4\n");
  expect(stderr).toContain("Install Nix 2.4 or newer: an older one cannot unpack what a cache holds either.");
  expect(code).toBe(3);
});
