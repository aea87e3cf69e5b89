import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ProgramResult, RunProgram } from "../../../src/oci/credential-program.ts";
import { type CredentialSources, type Credentials, findCredentials } from "../../../src/oci/credentials.ts";

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
  /** Output, exit status or result by command line; others are not installed. */
  readonly programs?: Record<string, string | number | ProgramResult>;
}

/** A home with these files, and what `findCredentials` finds there. */
async function find(
  host: string,
  { docker, containers, runtime, authFile, sources, programs = {} }: Case,
  repository = "owner/repo/nix-cache",
  scheme: "http" | "https" = "https",
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
  const run: RunProgram = async ({ command, input }) => {
    const line = `${command.join(" ")}${input === "" ? "" : ` < ${input}`}`;
    commands.push(line);
    const output = programs[line];
    if (output === undefined) return { kind: "missing" };
    if (typeof output === "object") return output;
    return typeof output === "number"
      ? { kind: "exited", exitCode: output, stdout: "" }
      : { kind: "exited", exitCode: 0, stdout: output };
  };
  const found = await findCredentials(
    { scheme, host, repository },
    {
      home,
      xdgRuntimeDir: join(home, "run"),
      registryAuthFile: authFile === undefined ? undefined : join(home, "auth-file.json"),
      run,
      warn: (message) => warnings.push(message),
      ...sources,
    },
  );
  return { found: found && shown(found), warnings, commands, home };
}

function shown(credentials: Credentials): string {
  if (credentials.kind === "password") return `${credentials.username}:${credentials.password}`;
  return `${credentials.kind} ${credentials.token}`;
}

/** As docker's helpers say that they have none. */
const NOT_FOUND: ProgramResult = {
  kind: "exited",
  exitCode: 1,
  stdout: "credentials not found in native keychain\n",
};

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
      programs: { "docker-credential-x get < r.example": NOT_FOUND },
    },
    "u:p",
  ],
  [
    "a helper that has it under the name in the file",
    "r.example",
    {
      docker: { credsStore: "x", auths: { "https://r.example/v2/": {} } },
      programs: {
        "docker-credential-x get < r.example": NOT_FOUND,
        "docker-credential-x get < https://r.example/v2/": helperOutput("u", "s"),
      },
    },
    "u:s",
  ],
  [
    "a helper's identity token",
    "r.example",
    {
      docker: { credsStore: "x" },
      programs: { "docker-credential-x get < r.example": helperOutput("<token>", "s") },
    },
    "identity-token s",
  ],
  [
    "an identity token, beside a user name without a password",
    "r.azurecr.example",
    { docker: { auths: { "r.azurecr.example": { auth: btoa("0000:"), identitytoken: "i" } } } },
    "identity-token i",
  ],
  [
    "an identity token before a password",
    "r.example",
    { docker: { auths: { "r.example": { ...auth("u", "p"), identitytoken: "i" } } } },
    "identity-token i",
  ],
  [
    "an identity token in the place of a password",
    "r.example",
    { docker: { auths: { "r.example": auth("<token>", "i") } } },
    "identity-token i",
  ],
  [
    "a registry token before all others",
    "r.example",
    { docker: { auths: { "r.example": { ...auth("u", "p"), identitytoken: "i", registrytoken: "r" } } } },
    "registry-token r",
  ],
  [
    "Docker Hub, as docker names it",
    "registry-1.docker.io",
    { docker: { auths: { "https://index.docker.io/v1/": auth("u", "p") } } },
    "u:p",
  ],
  [
    "Docker Hub, as podman names it",
    "registry-1.docker.io",
    { containers: { auths: { "docker.io": auth("u", "p") } } },
    "u:p",
  ],
  [
    "Docker Hub, by a helper",
    "docker.io",
    {
      docker: { credsStore: "x", auths: { "https://index.docker.io/v1/": {} } },
      programs: { "docker-credential-x get < https://index.docker.io/v1/": helperOutput("u", "s") },
    },
    "u:s",
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

describe("a host is found under each of its names", () => {
  const password = { kind: "password", username: "u", password: "p" } as const;
  const look = (
    auths: Record<string, unknown>,
    host: string,
    scheme: "http" | "https" = "https",
    repository = "ns/cache",
  ) => find(host, { docker: { auths } }, repository, scheme).then(({ found }) => found);

  test.each([
    ["r.example", "r.example"],
    ["r.example/", "r.example"],
    ["https://r.example", "r.example"],
    ["https://r.example/", "r.example"],
    ["http://r.example/v2/", "r.example"],
    ["https://r.example/v1", "r.example"],
    ["https://r.example/v2/some/where", "r.example"],
    ["r.example/v2/", "r.example"],
    ["HTTPS://R.Example/v2/", "r.example"],
    ["R.EXAMPLE", "r.example"],
    ["r.example:443", "r.example"],
    ["https://r.example:443/v2/", "r.example"],
    ["r.example", "r.example:443"],
    ["r.example:5000", "r.example:5000"],
    ["http://r.example:5000/v2/", "r.example:5000"],
    ["[::1]:5000", "[::1]:5000"],
    ["r.example/ns", "r.example"],
    ["r.example/ns/", "r.example"],
    ["r.example/NS/cache", "r.example"],
  ])("%s is for %s", async (key, host) => {
    expect(await look({ [key]: auth(password.username, password.password) }, host)).toBe("u:p");
  });

  test.each([
    ["r.example.org", "r.example"],
    ["x.r.example", "r.example"],
    ["r.example:5000", "r.example"],
    ["r.example", "r.example:5000"],
    ["r.example:80", "r.example"],
    ["http://r.example:8443/", "r.example"],
    ["r.example/n", "r.example"],
    ["r.example/ns/cache/deep", "r.example"],
    ["r.example/other", "r.example"],
    ["ftp://r.example", "r.example"],
    ["u@r.example", "r.example"],
    ["", "r.example"],
    ["https://", "r.example"],
    ["docker.io", "docker.io.example"],
  ])("%s is not for %s", async (key, host) => {
    expect(await look({ [key]: auth(password.username, password.password) }, host)).toBeUndefined();
  });

  test("port 80 is that of plain HTTP", async () => {
    expect(await look({ "r.example:80": auth("u", "p") }, "r.example", "http")).toBe("u:p");
    expect(await look({ "r.example:443": auth("u", "p") }, "r.example", "http")).toBeUndefined();
  });

  test("the name itself goes before its other forms", async () => {
    const auths = { "https://r.example/v2/": auth("old", "p"), "r.example": auth("new", "p") };
    expect(await look(auths, "r.example")).toBe("new:p");
  });
});

test("a file that nobody has named may be absent, one that somebody has named may not", async () => {
  expect((await find("r.example", {})).warnings).toEqual([]);
  const { warnings } = await find("r.example", { sources: { registryAuthFile: "/nowhere/auth.json" } });
  expect(warnings).toEqual([expect.stringContaining("cannot read /nowhere/auth.json")]);
});

test("an empty file has none", async () => {
  expect(await find("r.example", { docker: " \n" })).toMatchObject({ found: undefined, warnings: [] });
});

test("without XDG_RUNTIME_DIR podman's file is that of the user's number", async () => {
  const seen: string[] = [];
  // Nothing is there, and a named file tells where it was looked for.
  const registryAuthFile = "/run/containers/4294967294/auth.json";
  await findCredentials(
    { scheme: "https", host: "r.example", repository: "x" },
    { uid: 4294967294, xdgRuntimeDir: "", registryAuthFile, warn: (message) => seen.push(message) },
  );
  expect(seen).toHaveLength(2);
});

describe("what cannot be used is passed over with a warning that holds no secret", () => {
  const SECRET = "s3cret-value";
  const exited = (exitCode: number, stdout: string): ProgramResult => ({ kind: "exited", exitCode, stdout });
  const helped = (result: string | number | ProgramResult): Case => ({
    docker: { credsStore: "x" },
    programs: { "docker-credential-x get < r.example": result },
  });
  test.each<[string, Case, string]>([
    ["a file that is no JSON", { docker: `{"auths":{"r.example":{"auth":"${SECRET}"` }, "is not JSON"],
    ["a file that is a list", { docker: `["${SECRET}"]` }, "is not a JSON object"],
    ["auths that are a list", { docker: { auths: [SECRET] } }, "auths is not an object"],
    ["an entry that is a text", { docker: { auths: { "r.example": SECRET } } }, 'auths["r.example"] is not'],
    [
      "auth that is no base64",
      { docker: { auths: { "r.example": { auth: `!!${SECRET}!!` } } } },
      'auths["r.example"].auth is not base64, expected base64 of user:password',
    ],
    [
      "auth without a colon",
      { docker: { auths: { "r.example": { auth: btoa(SECRET) } } } },
      "has no colon, expected base64 of user:password",
    ],
    [
      "auth without a user",
      { docker: { auths: { "r.example": { auth: btoa(`:${SECRET}`) } } } },
      "has no user name",
    ],
    ["auth without a password", { docker: { auths: { "r.example": auth("u", "") } } }, "has no password"],
    [
      "an identity token that no header can carry",
      { docker: { auths: { "r.example": { identitytoken: `${SECRET}\n` } } } },
      "identitytoken is not a token",
    ],
    [
      "a registry token that is none",
      { docker: { auths: { "r.example": { registrytoken: { SECRET } } } } },
      "registrytoken is not a token",
    ],
    ["credHelpers that are a text", { docker: { credHelpers: SECRET } }, "credHelpers is not an object"],
    [
      "a helper that is no text",
      { docker: { credHelpers: { "r.example": [SECRET] } } },
      'credHelpers["r.example"] is not the name of a credential helper',
    ],
    ["a store that is no text", { docker: { credsStore: 3 } }, "credsStore is not the name"],
    [
      "a helper that is not installed",
      { docker: { credsStore: "x" } },
      "config.json: docker-credential-x: it is not installed",
    ],
    [
      "a helper that fails",
      helped(exited(3, SECRET)),
      "docker-credential-x: it failed with exit status 3. See what it says: echo r.example | docker-credential-x get",
    ],
    [
      "a helper that does not answer",
      helped({ kind: "failed", reason: "it did not answer within 10 s" }),
      "config.json: docker-credential-x: it did not answer within 10 s",
    ],
    ["a helper that prints no JSON", helped(`oops ${SECRET}`), "docker-credential-x: it printed no JSON"],
    ["a helper that prints a list", helped(`["${SECRET}"]`), "it printed no Username and Secret"],
    ["a helper that prints no secret", helped(helperOutput(SECRET, "")), "it printed no Username and Secret"],
    [
      "a helper's name that would be a path",
      { docker: { credsStore: "../../evil" } },
      "is not the name of a credential helper",
    ],
  ])("%s", async (_, input, warning) => {
    const { found, warnings } = await find("r.example", input);
    expect(found).toBeUndefined();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(warning);
    expect(warnings.join()).not.toContain(SECRET);
  });

  test("gh that does not answer", async () => {
    const reason = "it did not answer within 10 s";
    const { warnings } = await find("ghcr.io", {
      programs: { "gh auth token --hostname github.com": { kind: "failed", reason } },
    });
    expect(warnings).toEqual([`credentials: gh auth token: ${reason}`]);
  });

  test("a folder in the place of a file", async () => {
    const home = join(parent, "folder");
    await mkdir(join(home, ".docker/config.json"), { recursive: true });
    const warnings: string[] = [];
    expect(
      await findCredentials(
        { scheme: "https", host: "r.example", repository: "x" },
        { home, warn: (message) => warnings.push(message) },
      ),
    ).toBeUndefined();
    expect(warnings[0]).toContain("config.json");
  });
});

test("a helper that fails stops nothing: the next file is looked into", async () => {
  const { found, warnings } = await find("r.example", {
    containers: { credHelpers: { "r.example": "x" } },
    docker: { auths: { "r.example": auth("u", "p") } },
    programs: { "docker-credential-x get < r.example": 7 },
  });
  expect(found).toBe("u:p");
  expect(warnings).toEqual([expect.stringContaining("auth.json: docker-credential-x: it failed with exit")]);
});

test("a real helper is found in the PATH of its environment", async () => {
  const bin = join(parent, "bin");
  const helper = join(bin, "docker-credential-nixcachetest");
  await Bun.write(
    helper,
    '#!/bin/sh\n[ "$*" = get ] || exit 1\nread -r host\nprintf \'{"ServerURL":"%s","Username":"u-%s","Secret":"s"}\' "$host" "$host"\n',
  );
  await chmod(helper, 0o755);
  const home = join(parent, "real");
  await Bun.write(join(home, ".docker/config.json"), JSON.stringify({ credsStore: "nixcachetest" }));
  const helperEnvironment = { PATH: `${bin}:${process.env.PATH}` };
  const repository = { scheme: "https", host: "r.example", repository: "x" } as const;
  expect(await findCredentials(repository, { home, helperEnvironment })).toEqual({
    kind: "password",
    username: "u-r.example",
    password: "s",
  });
});
