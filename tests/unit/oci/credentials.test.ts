import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type CredentialSources, findCredentials, type RunProgram } from "../../../src/oci/credentials.ts";

let parent = "";
let count = 0;
beforeAll(async () => {
  parent = await mkdtemp(join(tmpdir(), "nixcache-test-credentials-"));
});
afterAll(() => rm(parent, { recursive: true }));

const auth = (username: string, password: string) => ({ auth: btoa(`${username}:${password}`) });

interface Case {
  readonly docker?: unknown;
  readonly containers?: unknown;
  readonly runtime?: unknown;
  readonly authFile?: unknown;
  readonly sources?: Partial<CredentialSources>;
  /** Output by command line; others are not installed. */
  readonly programs?: Record<string, string | number>;
}

/** A home with these files, and what `findCredentials` finds there. */
async function find(
  host: string,
  { docker, containers, runtime, authFile, sources, programs = {} }: Case,
  repository?: string,
) {
  const home = join(parent, String(count++));
  await mkdir(home, { recursive: true });
  const write = async (path: string, value: unknown) => {
    if (value !== undefined)
      await Bun.write(join(home, path), typeof value === "string" ? value : JSON.stringify(value));
  };
  await write(".docker/config.json", docker);
  await write(".config/containers/auth.json", containers);
  await write("run/containers/auth.json", runtime);
  await write("auth-file.json", authFile);
  const warnings: string[] = [];
  const commands: string[] = [];
  const run: RunProgram = async (command, input) => {
    const line = `${command.join(" ")}${input === "" ? "" : ` < ${input}`}`;
    commands.push(line);
    const output = programs[line];
    if (output === undefined) return undefined;
    return typeof output === "number" ? { exitCode: output, stdout: "" } : { exitCode: 0, stdout: output };
  };
  const found = await findCredentials(
    host,
    {
      home,
      xdgRuntimeDir: join(home, "run"),
      registryAuthFile: authFile === undefined ? undefined : join(home, "auth-file.json"),
      run,
      warn: (message) => warnings.push(message),
      ...sources,
    },
    repository,
  );
  return {
    found: found === undefined ? undefined : `${found.username}:${found.password}`,
    warnings,
    commands,
  };
}

const helperOutput = (username: string, secret: string) =>
  JSON.stringify({ ServerURL: "x", Username: username, Secret: secret });

test.each<[string, string, Case, string | undefined]>([
  ["nothing anywhere", "ghcr.io", {}, undefined],
  ["GITHUB_TOKEN", "ghcr.io", { sources: { githubToken: "g1", ghToken: "g2" } }, "nixcache:g1"],
  ["GH_TOKEN", "ghcr.io", { sources: { githubToken: "", ghToken: "g2", githubActor: "me" } }, "me:g2"],
  ["never a GitHub token for another host", "example.org", { sources: { githubToken: "g1" } }, undefined],
  [
    "never a GitHub token for a host that looks alike",
    "ghcr.io.example.org",
    { sources: { githubToken: "g1" } },
    undefined,
  ],
  [
    "GITHUB_TOKEN before files",
    "ghcr.io",
    { sources: { githubToken: "g" }, docker: { auths: { "ghcr.io": auth("u", "p") } } },
    "nixcache:g",
  ],
  [
    "docker's auths",
    "ghcr.io",
    { docker: { auths: { "ghcr.io": auth("u", "p:with:colons") } } },
    "u:p:with:colons",
  ],
  [
    "docker's auths with a port",
    "localhost:5000",
    { docker: { auths: { "localhost:5000": auth("u", "p") } } },
    "u:p",
  ],
  [
    "docker's auths as an address",
    "r.example",
    { docker: { auths: { "https://r.example/v2/": auth("u", "p") } } },
    "u:p",
  ],
  [
    "docker's auths of others",
    "r.example",
    { docker: { auths: { "other.example": auth("u", "p") } } },
    undefined,
  ],
  [
    "username and password",
    "r.example",
    { docker: { auths: { "r.example": { username: "u", password: "p" } } } },
    "u:p",
  ],
  [
    "an empty entry, with a store",
    "r.example",
    {
      docker: { auths: { "r.example": {} }, credsStore: "pass" },
      programs: { "docker-credential-pass get < r.example": helperOutput("u", "s") },
    },
    "u:s",
  ],
  [
    "a helper for the host",
    "r.example",
    {
      docker: { credHelpers: { "r.example": "x" }, credsStore: "y" },
      programs: { "docker-credential-x get < r.example": helperOutput("u", "s") },
    },
    "u:s",
  ],
  [
    "a helper that knows nothing, then auths",
    "r.example",
    {
      docker: { credHelpers: { "r.example": "x" }, auths: { "r.example": auth("u", "p") } },
      programs: { "docker-credential-x get < r.example": 1 },
    },
    "u:p",
  ],
  [
    "containers' auth.json before docker's",
    "r.example",
    {
      containers: { auths: { "r.example": auth("c", "p") } },
      docker: { auths: { "r.example": auth("d", "p") } },
    },
    "c:p",
  ],
  [
    "the runtime's auth.json before the home's",
    "r.example",
    {
      runtime: { auths: { "r.example": auth("r", "p") } },
      containers: { auths: { "r.example": auth("c", "p") } },
    },
    "r:p",
  ],
  [
    "REGISTRY_AUTH_FILE before all files",
    "r.example",
    {
      authFile: { auths: { "r.example": auth("f", "p") } },
      runtime: { auths: { "r.example": auth("r", "p") } },
    },
    "f:p",
  ],
  [
    "gh at last",
    "ghcr.io",
    { programs: { "gh auth token --hostname github.com": "gho_x\n" } },
    "nixcache:gho_x",
  ],
  [
    "gh, where nobody is signed in",
    "ghcr.io",
    { programs: { "gh auth token --hostname github.com": 1 } },
    undefined,
  ],
  [
    "an entry called __proto__",
    "__proto__",
    { docker: '{"auths":{"__proto__":{"username":"u","password":"p"}}}' },
    "u:p",
  ],
  ["a host called constructor", "constructor", { docker: { auths: {}, credHelpers: {} } }, undefined],
])("%s", async (_, host, input, expected) => {
  expect((await find(host, input)).found).toBe(expected as never);
});

test("credentials for a part of a host: the most exact", async () => {
  const auths = {
    "r.example/a/b": auth("ab", "p"),
    "r.example/a": auth("a", "p"),
    "r.example": auth("all", "p"),
  };
  expect((await find("r.example", { containers: { auths } }, "a/b/c")).found).toBe("ab:p");
  expect((await find("r.example", { containers: { auths } }, "a/x")).found).toBe("a:p");
  expect((await find("r.example", { containers: { auths } }, "ab")).found).toBe("all:p");
});

test("gh is not asked for other hosts, and not when something was found", async () => {
  expect((await find("r.example", {})).commands).toEqual([]);
  expect((await find("ghcr.io", { docker: { auths: { "ghcr.io": auth("u", "p") } } })).commands).toEqual([]);
});

describe("what cannot be used is passed over with a warning that holds no secret", () => {
  const SECRET = "s3cret-value";
  test.each<[string, Case, string]>([
    ["a file that is no JSON", { docker: `{"auths":{"r.example":{"auth":"${SECRET}"` }, "is no JSON"],
    [
      "auth that is no base64 of a pair",
      { docker: { auths: { "r.example": { auth: btoa(SECRET) } } } },
      "is not base64 of user:password",
    ],
    [
      "an identity token",
      { docker: { auths: { "r.example": { auth: btoa("u:"), identitytoken: SECRET } } } },
      "identity token",
    ],
    [
      "a helper's identity token",
      {
        docker: { credsStore: "x" },
        programs: { "docker-credential-x get < r.example": helperOutput("<token>", SECRET) },
      },
      "identity token",
    ],
    [
      "a helper that is not installed",
      { docker: { credsStore: "x" } },
      "docker-credential-x is not installed",
    ],
    [
      "a helper that prints no JSON",
      { docker: { credsStore: "x" }, programs: { "docker-credential-x get < r.example": `oops ${SECRET}` } },
      "printed no JSON",
    ],
    [
      "a helper's name that would be a path",
      { docker: { credsStore: `../../${SECRET.slice(0, 0)}evil` } },
      "is no name of a credential helper",
    ],
  ])("%s", async (_, input, warning) => {
    const { found, warnings } = await find("r.example", input);
    expect(found).toBeUndefined();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(warning);
    expect(warnings.join()).not.toContain(SECRET);
  });

  test("a folder in the place of a file", async () => {
    const home = join(parent, "folder");
    await mkdir(join(home, ".docker/config.json"), { recursive: true });
    const warnings: string[] = [];
    expect(
      await findCredentials("r.example", { home, warn: (message) => warnings.push(message) }),
    ).toBeUndefined();
    expect(warnings[0]).toContain("config.json");
  });
});

test("a real helper gets the host on stdin and nothing in its arguments", async () => {
  const bin = join(parent, "bin");
  const helper = join(bin, "docker-credential-nixcachetest");
  await mkdir(bin, { recursive: true });
  await Bun.write(
    helper,
    '#!/bin/sh\n[ "$*" = get ] || exit 1\nread -r host\nprintf \'{"ServerURL":"%s","Username":"u-%s","Secret":"s"}\' "$host" "$host"\n',
  );
  await chmod(helper, 0o755);
  const home = join(parent, "real");
  await Bun.write(join(home, ".docker/config.json"), JSON.stringify({ credsStore: "nixcachetest" }));
  const module = join(import.meta.dir, "../../../src/oci/credentials.ts");
  const script = `const { findCredentials } = await import(${JSON.stringify(module)});
    console.log(JSON.stringify(await findCredentials("r.example", { home: ${JSON.stringify(home)} })));`;
  const child = Bun.spawn([process.execPath, "-e", script], {
    env: { ...process.env, PATH: `${bin}:${process.env.PATH}` },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  expect(JSON.parse(await child.stdout.text())).toEqual({ username: "u-r.example", password: "s" });
});
