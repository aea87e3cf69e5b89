/** `nixcache doctor` where all is right, and where one thing after another is not. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { dirname, join } from "node:path";
import type { Finding } from "../../src/setup/check.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { shellDerivation } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let server: CliServer;
let cache: string;
let path: string;

/** States by check, and all of what was found. */
async function doctor(args: readonly string[], env: Record<string, string | undefined> = {}) {
  const given = ["doctor", "--json", ...args];
  const { code, stdout, stderr } = await cli.run(given, { env: { ...machine(), ...env } });
  const { findings, ok } = JSON.parse(stdout) as { findings: Finding[]; ok: boolean };
  expect({ code, ok }).toEqual(code === 0 ? { code: 0, ok: true } : { code: 16, ok: false });
  const states = Object.fromEntries(findings.map(({ check, state }) => [check, state]));
  const of = (name: string) => findings.find(({ check }) => check === name);
  for (const { state, mend, check } of findings) {
    expect([check, state === "wrong" && mend === undefined]).toEqual([check, false]);
  }
  return { code, states, of, stderr };
}

/** Nix as the user has it; credentials for the registry are in docker's file. */
function machine(): Record<string, string> {
  const { HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME } = cli.env as Record<string, string>;
  return { ...nix.env, ...{ HOME, XDG_CONFIG_HOME, XDG_CACHE_HOME } } as Record<string, string>;
}

function signIn(password: string | undefined): void {
  const file = join(cli.env.HOME ?? "", ".docker", "config.json");
  mkdirSync(dirname(file), { recursive: true });
  const auth = Buffer.from(`me:${password}`).toString("base64");
  writeFileSync(file, JSON.stringify({ auths: password ? { [registry.host]: { auth } } : {} }));
}

const here = () => ["--cache", cache, "--port", new URL(server.url).port];

describeWith(["nix", "registry"], "doctor", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry({ user: { name: "me", password: "right" } }));
    signIn("right");
    cache = `${registry.host}/me/cache`;
    path = await nix.build(shellDerivation("doctored", "echo doctored > $out"));
    await cli.run(["keygen", "doctored-1", cli.path("secret.key"), cli.path("public.key")]);
    const publish = ["publish", path, "--cache", cache, "--upstream", ""];
    await cli.run([...publish, "--signing-key-file", cli.path("secret.key")], { env: storeVariables(nix) });
    server = await cli.serve(["--cache", cache, "--upstream", ""]);
    expect(
      (await cli.run(["use", cache, "--mode", "user", ...here().slice(2)], { env: machine() })).code,
    ).toBe(0);
  });

  test("all is right, the credentials may write, and the upload that showed it was cancelled", async () => {
    const { code, states, of } = await doctor(here());
    expect([...new Set(Object.values(states))]).toEqual(["ok"]);
    expect(code).toBe(0);
    expect(Object.keys(states)).toEqual(
      "nix substituters keys require-sigs daemon accepts remembered serve index-age cache push clock publishes signatures disk".split(
        " ",
      ),
    );
    expect(of("push")?.text).toContain("can be written to with the token that is set");
    const uploads = join(registry.folder, "docker/registry/v2/repositories/me/cache/_uploads");
    // distribution leaves the state of its hash behind; what makes a session is gone.
    const left = readdirSync(uploads, { recursive: true }).map(String);
    expect(left.filter((file) => /\/(startedat|data)$/.test(file))).toEqual([]);
  });

  test("as lines for people, on standard output, within a screen", async () => {
    const { code, stdout, stderr } = await cli.run(["doctor", ...here()], { env: machine() });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "[success] all is right\n" });
    expect(stdout.split("\n").length).toBeLessThan(24);
    expect(stdout).toContain(`ok      accepts       Nix would take ${path} from ${server.url}\n`);
  });

  test("wrong credentials, and none", async () => {
    signIn("wrong");
    const wrong = await doctor(here());
    expect(wrong.states).toMatchObject({ cache: "wrong", push: "wrong", serve: "ok", clock: "ok" });
    expect(wrong.of("push")?.mend).toContain(`docker login ${registry.host}`);
    signIn(undefined);
    const none = await doctor(here());
    expect(none.states).toMatchObject({ cache: "wrong", push: "ok" });
    expect(none.of("cache")?.text).toContain("without credentials");
    signIn("right");
  });

  test("a Nix that was never told, and one that trusts another key of the same name", async () => {
    const never = await doctor(here(), { XDG_CONFIG_HOME: cli.path("elsewhere") });
    expect(never.states).toMatchObject({
      substituters: "wrong",
      keys: "wrong",
      accepts: "wrong",
      serve: "ok",
    });
    expect(never.of("substituters")?.mend).toBe(`Run: nixcache use ${cache} --port ${here()[3]}`);
    const other = `doctored-1:${Buffer.alloc(32, 7).toString("base64")}`;
    const conf = `extra-substituters = ${server.url}\ntrusted-public-keys = ${other}\nrequire-sigs = false`;
    const shadowed = await doctor(here(), { XDG_CONFIG_HOME: cli.path("elsewhere"), NIX_CONFIG: conf });
    expect(shadowed.states).toMatchObject({ substituters: "ok", keys: "wrong", "require-sigs": "note" });
    expect(shadowed.of("keys")?.text).toContain("Nix trusts another key of the name doctored-1");
  });

  test("signatures that the keys do not make", async () => {
    const key = `doctored-1:${Buffer.alloc(32, 7).toString("base64")}`;
    const { of } = await doctor([...here(), "--trusted-public-key", key]);
    expect(of("signatures")).toMatchObject({ state: "wrong", text: expect.stringContaining(path) });
  });

  test("serve serves another cache", async () => {
    const other = await cli.serve(["--cache", `${registry.host}/me/other`, "--upstream", ""]);
    const { of, states } = await doctor(["--cache", cache, "--port", new URL(other.url).port]);
    expect(of("serve")?.text).toContain(`serves ${registry.host}/me/other, not ${cache}`);
    expect(states.substituters).toBe("wrong");
    await other.stop();
  });

  test("serve goes on with what it has while the registry is away: the rest is told", async () => {
    await registry.stop();
    const { states, of } = await doctor(here());
    await registry.start();
    expect(states).toMatchObject({
      serve: "ok",
      cache: "wrong",
      clock: "skipped",
      publishes: "note",
      accepts: "ok",
    });
    expect(of("cache")?.text).toContain("nobody listens there");
  });

  test("a broken nix.conf is told in Nix's words", async () => {
    const { of, states } = await doctor(here(), { NIX_CONFIG: "nonsense" });
    expect(of("substituters")?.text).toContain("nonsense");
    expect(states.serve).toBe("ok");
  });

  test("with everything down it ends, and says so of each", async () => {
    const { states, of } = await doctor(["--cache", "127.0.0.1:9/none", "--port", "9"], { PATH: "/nowhere" });
    expect(states).toMatchObject({ nix: "wrong", substituters: "wrong", serve: "wrong", cache: "wrong" });
    expect(of("nix")?.mend).toContain("Install Nix");
  });

  test("where everything hangs it ends as well", async () => {
    const silent = createServer(() => {});
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo;
    const bin = cli.path("hanging");
    mkdirSync(bin);
    writeFileSync(join(bin, "nix"), "#!/bin/sh\nexec sleep 600\n", { mode: 0o755 });
    const started = performance.now();
    const { states } = await doctor(["--cache", `127.0.0.1:${port}/none`, "--port", String(port)], {
      PATH: `${bin}:${process.env.PATH}`,
    });
    // Each check has 5 s, and all run at once: fourteen of them one after the other would take over a minute.
    expect(performance.now() - started).toBeLessThan(30_000);
    const expected = "nix substituters keys serve cache".split(" ").map((name) => [name, "wrong"]);
    expect(states).toMatchObject({ ...Object.fromEntries(expected), keys: expect.anything(), disk: "ok" });
    silent.close();
  });

  test("a clock that is wrong", async () => {
    const late = createHttpServer((_, response) => {
      response.setHeader("date", new Date(Date.now() + 7_200_000).toUTCString());
      response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => late.listen(0, "127.0.0.1", resolve));
    const { port } = late.address() as AddressInfo;
    const { of } = await doctor(["--cache", `127.0.0.1:${port}/none`]);
    expect(of("clock")).toMatchObject({ state: "wrong", text: "this clock is 2 h behind the registry's" });
    expect(of("cache")?.text).toContain("there is nothing at");
    late.close();
  });
});
