/** `nixcache keygen` beside the real `nix-store --generate-binary-cache-key`. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Cli, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";

const cleanup = new Cleanup();
let cli: Cli;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
});
afterAll(() => cleanup.run());

let folders = 0;
async function newFolder(): Promise<string> {
  const folder = cli.path(`keys-${++folders}`);
  await mkdir(folder);
  return folder;
}

async function makeKey(name = "test-1"): Promise<{ folder: string; secret: string; public: string }> {
  const folder = await newFolder();
  const { code, stderr } = await cli.run(["keygen", name], { cwd: folder });
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const read = (file: string) => readFile(join(folder, file), "utf8");
  return { folder, secret: await read("secret.key"), public: await read("public.key") };
}

const SECRET = /^test-1:[A-Za-z0-9+/]{86}==$/;
const PUBLIC = /^test-1:[A-Za-z0-9+/]{43}=$/;

describe("keygen", () => {
  test("writes secret.key and public.key without a newline at the end", async () => {
    const key = await makeKey();
    expect(key.secret).toMatch(SECRET);
    expect(key.public).toMatch(PUBLIC);
    expect(readdirSync(key.folder).sort()).toEqual(["public.key", "secret.key"]);
  });

  test("lets only the owner read the secret, and everybody the public key", async () => {
    const { folder } = await makeKey();
    expect(statSync(join(folder, "secret.key")).mode & 0o777).toBe(0o600);
    expect(statSync(join(folder, "public.key")).mode & 0o777).toBe(0o644);
  });

  test("prints the public key and never the secret one", async () => {
    const folder = await newFolder();
    const { stdout, stderr } = await cli.run(["keygen", "test-1"], { cwd: folder });
    const secret = await readFile(join(folder, "secret.key"), "utf8");
    expect(stderr).toContain(await readFile(join(folder, "public.key"), "utf8"));
    expect(stdout + stderr).not.toContain(secret.slice("test-1:".length, 40));
  });

  test("takes the names of both files", async () => {
    const folder = await newFolder();
    const args = ["keygen", "test-1", join(folder, "a"), join(folder, "b")];
    expect((await cli.run(args)).code).toBe(0);
    expect(await readFile(join(folder, "a"), "utf8")).toMatch(SECRET);
    expect(await readFile(join(folder, "b"), "utf8")).toMatch(PUBLIC);
  });

  test("makes another key each time", async () => {
    expect((await makeKey()).secret).not.toBe((await makeKey()).secret);
  });

  test.each(["secret.key", "public.key"])("changes nothing when %s exists already", async (existing) => {
    const folder = await newFolder();
    writeFileSync(join(folder, existing), "precious", { mode: 0o640 });
    const { code, stderr, stdout } = await cli.run(["keygen", "test-1"], { cwd: folder });
    expect(code).toBe(4);
    expect(stderr).toContain(`${existing} exists already and is not overwritten`);
    expect(stdout).toBe("");
    expect(readdirSync(folder)).toEqual([existing]);
    expect(await readFile(join(folder, existing), "utf8")).toBe("precious");
    expect(statSync(join(folder, existing)).mode & 0o777).toBe(0o640);
  });

  test("leaves no secret behind when the public key cannot be written", async () => {
    const folder = await newFolder();
    const { code, stderr } = await cli.run(["keygen", "test-1", "s", "no/such/folder/p"], { cwd: folder });
    expect(code).toBe(7);
    expect(stderr).toContain("no/such/folder/p");
    expect(readdirSync(folder)).toEqual([]);
  });

  test("refuses one file for both keys, and makes none", async () => {
    const folder = await newFolder();
    const { code } = await cli.run(["keygen", "test-1", "key", "key"], { cwd: folder });
    expect(code).toBe(2);
    expect(readdirSync(folder)).toEqual([]);
  });

  test.each(["", "with:colon", "with blank", "with\ttab", "with\nnewline"])(
    "refuses the name %j",
    async (name) => {
      const folder = await newFolder();
      const { code, stderr } = await cli.run(["keygen", name], { cwd: folder });
      expect(code).not.toBe(0);
      expect(stderr).toMatch(/^\[error\] .*name/i);
      expect(readdirSync(folder)).toEqual([]);
    },
  );

  test("--public turns a secret key on standard input into its public key", async () => {
    const key = await makeKey();
    for (const stdin of [key.secret, `${key.secret}\n`]) {
      const { code, stdout } = await cli.run(["keygen", "--public"], { stdin });
      expect({ code, stdout }).toEqual({ code: 0, stdout: `${key.public}\n` });
    }
  });

  test.each([
    ["nothing", ""],
    ["a public key", `test-1:${Buffer.alloc(32, 1).toString("base64")}`],
    ["something else", "hunter2-hunter2"],
  ])("--public refuses %s, and does not repeat it", async (_, stdin) => {
    const { code, stdout, stderr } = await cli.run(["keygen", "--public"], { stdin });
    expect({ code, stdout }).toEqual({ code: 4, stdout: "" });
    expect(stderr).toContain("standard input");
    if (stdin !== "") expect(stderr).not.toContain(stdin);
  });
});

describeWith(["nix"], "keygen and Nix", () => {
  let nix: TestNix;

  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
  });

  test("the files have the form, and the secret the mode, of Nix's own", async () => {
    const ours = await makeKey();
    const folder = await newFolder();
    const files = [join(folder, "secret.key"), join(folder, "public.key")] as const;
    await nix.run("nix-store", ["--generate-binary-cache-key", "test-1", ...files]);
    const theirs = { secret: await readFile(files[0], "utf8"), public: await readFile(files[1], "utf8") };
    for (const key of [ours, theirs]) {
      expect(key.secret).toMatch(SECRET);
      expect(key.public).toMatch(PUBLIC);
    }
    expect(statSync(files[0]).mode & 0o777).toBe(0o600);
    // What Nix made is a key for us.
    const { stdout } = await cli.run(["keygen", "--public"], { stdin: theirs.secret });
    expect(stdout).toBe(`${theirs.public}\n`);
  });

  test("Nix derives the same public key, signs with ours, and trusts what it signed", async () => {
    const key = await makeKey();
    expect((await nix.run("nix", ["key", "convert-secret-to-public"], { stdin: key.secret })).trim()).toBe(
      key.public,
    );
    const path = await nix.build(shellDerivation("signed", "echo signed > $out"));
    await nix.run("nix", ["store", "sign", "--key-file", join(key.folder, "secret.key"), path]);
    const verify = (trusted: string) =>
      nix.run("nix", ["store", "verify", "--sigs-needed", "1", "--trusted-public-keys", trusted, path]);
    await verify(key.public);
    await expect(verify((await makeKey()).public)).rejects.toThrow("untrusted");
  });
});
