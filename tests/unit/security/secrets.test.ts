/** What is secret does not reach other programs, records or messages. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Glob } from "bun";
import fc from "fast-check";
import { ROOT } from "../../../scripts/process.ts";
import { describeRequests, joinDiscoveries } from "../../../src/build/request.ts";
import { decodeRecord, encodeRecord, type PublishRecord } from "../../../src/cache/record.ts";
import { childEnvironment, helperEnvironment, withSafeGit } from "../../../src/child-environment.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { runCommand } from "../../../src/nix/command.ts";
import { redactUrls } from "../../../src/redact.ts";
import { readCheckout } from "../../../src/system/git.ts";
import { runTheirCommand } from "../../../src/watch/command.ts";

const folder = await mkdtemp(join(tmpdir(), "nixcache-test-secrets-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

const SECRETS = {
  NIX_SIGNING_KEY: "me-1:secret",
  NIXCACHE_SIGNING_KEY_FILE: "/secret.key",
  NIXCACHE_WRITE_TOKEN: "write-secret",
  NIXCACHE_WRITE_TOKEN_FILE: "/write-secret",
  GITHUB_TOKEN: "ghs_secret",
  GH_TOKEN: "gho_secret",
  ACTIONS_RUNTIME_TOKEN: "runtime-secret",
};
const PLAIN = { PATH: process.env.PATH ?? "", HOME: folder, NIX_CONFIG: "cores = 1", AWS_PROFILE: "kept" };
const ENV = { ...PLAIN, ...SECRETS };

describe("S3: no program that is started gets a secret", () => {
  test("evaluated code, builders and commands of the person's get the rest", () => {
    expect(childEnvironment({ ...ENV, UNSET: undefined })).toEqual(PLAIN);
  });

  test("a credential helper keeps the tokens, and nothing that only nixcache uses", () => {
    const { GITHUB_TOKEN, GH_TOKEN, ACTIONS_RUNTIME_TOKEN } = SECRETS;
    expect(helperEnvironment(ENV)).toEqual({ ...PLAIN, GITHUB_TOKEN, GH_TOKEN, ACTIONS_RUNTIME_TOKEN });
  });

  test("Nix's commands are started so", async () => {
    const { stdout } = await runCommand(["env"], ENV);
    for (const [name, value] of Object.entries(SECRETS)) {
      expect(stdout).not.toContain(name);
      expect(stdout).not.toContain(value);
    }
    expect(stdout).toContain("NIX_CONFIG=cores = 1\n");
  });

  test("and so is the command of --watch", async () => {
    const file = join(folder, "env");
    const signal = new AbortController().signal;
    expect(await runTheirCommand(["sh", "-c", `env > ${file}`], { env: ENV, signal })).toBe(0);
    const text = await Bun.file(file).text();
    expect(text).toContain("AWS_PROFILE=kept\n");
    for (const name of Object.keys(SECRETS)) expect(text).not.toContain(name);
  });

  test("every place that starts a program makes its environment by one of the two", async () => {
    const places: string[] = [];
    for (const file of new Glob("src/**/*.ts").scanSync({ cwd: ROOT })) {
      const text = await Bun.file(join(ROOT, file)).text();
      // The bundle of the page is made in a checkout, by whoever runs the sources.
      if (file === "src/serve/page/bundle.ts") continue;
      for (const { index } of text.matchAll(/\bspawn(?:Sync)?\(|\bexec(?:File)?(?:Sync)?\(["'`[]/g)) {
        const call = text.slice(index, index + 500);
        places.push(`${file}: ${/\b(?:child|helper)Environment\(/.test(call)}`);
      }
    }
    expect(places.length).toBeGreaterThan(3);
    expect(places.filter((place) => !place.endsWith(": true"))).toEqual([]);
  });
});

describe("S29: nothing that a checkout configures is run", () => {
  test("a program that watches files, a filter, a hook", async () => {
    const checkout = join(folder, "checkout");
    await mkdir(checkout);
    const ran = join(folder, "ran");
    const git = async (...args: string[]) => {
      const env = { PATH: process.env.PATH ?? "", HOME: folder, GIT_CONFIG_NOSYSTEM: "1" };
      const child = Bun.spawn(["git", "-C", checkout, ...args], { env, stdout: "ignore", stderr: "pipe" });
      if ((await child.exited) !== 0) throw new Error(await child.stderr.text());
    };
    await git("init", "--quiet");
    await Bun.write(join(checkout, ".gitattributes"), "*.txt filter=theirs\n");
    await Bun.write(join(checkout, "a.txt"), "a\n");
    await git("add", "--all");
    await git("-c", "user.name=me", "-c", "user.email=me@host", "commit", "--quiet", "--message", "one");
    const script = join(folder, "theirs");
    await Bun.write(script, `#!/bin/sh\ntouch ${ran}\n`);
    await chmod(script, 0o755);
    for (const key of ["core.fsmonitor", "filter.theirs.clean", "core.pager", "core.sshCommand"])
      await git("config", key, script);
    await git("config", "filter.theirs.required", "true");
    await Bun.write(join(checkout, "a.txt"), "b\n");
    // Else git might take the file for the one that it has just added.
    await utimes(join(checkout, "a.txt"), 1, 1);
    const found = await readCheckout(checkout, { PATH: process.env.PATH ?? "", HOME: folder });
    expect(found?.revision).toEndWith("-dirty");
    expect(await Bun.file(ran).exists()).toBe(false);
    // The same checkout without it, or the test could not fail.
    await git("status").catch(() => {});
    expect(await Bun.file(ran).exists()).toBe(true);
  });

  test("settings that the person has given git stay", () => {
    const before = { GIT_CONFIG_COUNT: "1", GIT_CONFIG_KEY_0: "a.b", GIT_CONFIG_VALUE_0: "c" };
    expect(withSafeGit(before)).toEqual({
      ...before,
      GIT_CONFIG_COUNT: "3",
      GIT_CONFIG_KEY_1: "core.fsmonitor",
      GIT_CONFIG_VALUE_1: "false",
      GIT_CONFIG_KEY_2: "core.hooksPath",
      GIT_CONFIG_VALUE_2: "/dev/null",
    });
  });
});

describe("S4: a password in a URL becomes no name, no record, no message", () => {
  test.each([
    ["git+http://user:secret@host/repo?ref=main", "git+http://…@host/repo?ref=main"],
    ["git+ssh://git@host/repo", "git+ssh://…@host/repo"],
    ["https://x-access-token:ghs_1@github.com/o/r.git", "https://…@github.com/o/r.git"],
    ["https://host/a.tar.gz?access_token=abc&rev=1", "https://host/a.tar.gz?access_token=…&rev=1"],
    ["https://host/a?private-token=x;y=1", "https://host/a?private-token=…;y=1"],
    ["s3://bucket?X-Amz-Signature=00ff&region=eu", "s3://bucket?X-Amz-Signature=…&region=eu"],
    ["cannot fetch 'git+https://me:a@b@host/x': no", "cannot fetch 'git+https://…@host/x': no"],
    ["https://a:b@h/1 and https://c:d@h/2", "https://…@h/1 and https://…@h/2"],
    ["https://host/@scope/package@1.0", "https://host/@scope/package@1.0"],
    ["github:owner/repo", "github:owner/repo"],
    ["me@host:repo, no URL", "me@host:repo, no URL"],
    [
      "https://cache.example?priority=10&want-mass-query=true",
      "https://cache.example?priority=10&want-mass-query=true",
    ],
  ])("%s", (text, redacted) => {
    expect(redactUrls(text)).toBe(redacted);
    expect(redactUrls(redacted)).toBe(redacted);
  });

  test("any user and password, anywhere in a text", () => {
    const secret = fc.stringMatching(/^[A-Za-z0-9!$&*()+,;=:%._~-]{6,20}$/);
    fc.assert(
      fc.property(secret, fc.string(), fc.string(), (password, before, after) => {
        const text = `${before} git+https://me:PASS${password}@host.example/repo ${after}`;
        expect(redactUrls(text)).not.toContain(`PASS${password}`);
      }),
    );
  });

  const FLAKE = "git+http://user:secret@host/repo";
  const RECORD: PublishRecord = {
    time: "2026-11-23T00:00:00Z",
    tool: "nixcache 1",
    source: FLAKE,
    roots: { [`${FLAKE}#a`]: "/nix/store/x" },
    keys: [],
    content: `sha256:${"0".repeat(64)}`,
    entries: 0,
    selection: `flake ${FLAKE}: packages`,
    run: "https://me:secret@host/run",
  };

  test("a record, when it is written and when an earlier one is read", () => {
    expect(JSON.stringify(encodeRecord(RECORD))).not.toContain("secret");
    expect(JSON.stringify(decodeRecord({ ...RECORD }, "a record"))).not.toContain("secret");
    expect(decodeRecord({ ...RECORD }, "a record")).toEqual(decodeRecord(encodeRecord(RECORD), "a record"));
  });

  test("what outputs are called", () => {
    const request = { source: { flake: FLAKE }, outputs: ["packages"] };
    expect(describeRequests([request], folder, undefined)).toBe("flake git+http://…@host/repo: packages");
    const target = { attribute: "a" } as Parameters<typeof joinDiscoveries>[0][0][1]["targets"][number];
    const found = { targets: [target], missing: [], broken: [], skipped: [] };
    const [joined] = joinDiscoveries([[{ ...request, named: true }, found]]).targets;
    expect(joined?.attribute).toBe("git+http://…@host/repo#a");
  });

  test("an error and its hint", () => {
    const error = new NixcacheError("usage", `cannot evaluate ${FLAKE}`, { hint: `Look at ${FLAKE}.` });
    expect([error.message, error.hint]).toEqual([
      "cannot evaluate git+http://…@host/repo",
      "Look at git+http://…@host/repo.",
    ]);
  });
});
