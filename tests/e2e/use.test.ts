/** `nixcache use` with the real Nix: what it writes is what Nix goes by, and goes away again byte by byte. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createConnection } from "node:net";
import { dirname, join } from "node:path";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { lines, shellDerivation } from "../support/derivation.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import type { TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let server: CliServer;
let path: string;
let publicKey: string;
/** The user's own nix.conf. */
let file: string;

/** Odd on purpose: comments, an include that is not there, no newline at the end. */
const BEFORE = "# mine\ncores = 1\n\n!include nothing.conf\nconnect-timeout = 5 # the last line";

const port = () => new URL(server.url).port;

const keyFile = async (name: string) => {
  await cli.run(["keygen", name, cli.path(`${name}.secret`), cli.path(`${name}.public`)]);
  return readFileSync(cli.path(`${name}.public`), "utf8");
};

/** For `use` and for the Nix that it is about: an empty store, no memory of what caches lack. */
async function machine(): Promise<Record<string, string>> {
  const store = await nix.emptyStore();
  const { HOME, XDG_CONFIG_HOME } = cli.env as { HOME: string; XDG_CONFIG_HOME: string };
  return { ...nix.env, HOME, XDG_CONFIG_HOME, NIX_REMOTE: store, XDG_CACHE_HOME: `${store}-cache` };
}

/** Whether Nix, told nothing but what is in its files, gets the path from a cache. */
async function substitutes(env: Record<string, string>): Promise<boolean> {
  return nix.run("nix-store", ["--realise", path], { env }).then(
    (out) => lines(out)[0] === path,
    () => false,
  );
}

const use = (env: Record<string, string>, ...args: string[]) =>
  cli.run(["use", cli.path("cache"), "--port", port(), ...args], { env });

const publish = (to: string, what: string, ...args: string[]) =>
  cli.run(["publish", what, "--cache", cli.path(to), "--upstream", "", ...args], {
    env: storeVariables(nix),
  });

describeWith(["nix"], "use", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    path = await nix.build(shellDerivation("used", "echo used > $out"));
    publicKey = await keyFile("used-1");
    await publish("cache", path, "--signing-key-file", cli.path("used-1.secret"));
    server = await cli.serve(["--cache", cli.path("cache"), "--upstream", ""]);
    file = join(cli.env.XDG_CONFIG_HOME ?? "", "nix", "nix.conf");
  });

  beforeEach(() => {
    rmSync(dirname(file), { recursive: true, force: true });
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, BEFORE);
    chmodSync(file, 0o640);
  });

  test("a user's Nix substitutes through serve by what was written, and no more once it is removed", async () => {
    expect(await substitutes(await machine())).toBe(false);
    const env = await machine();
    const { code, stdout, stderr } = await use(env, "--mode", "user");
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.stringContaining(`wrote ${file}`) });
    expect(stderr).toContain(`${publicKey} has signed the publish of paths of 20`);
    expect(stderr).toContain(`undo it with: nixcache use ${cli.path("cache")} --remove --mode user`);
    expect(stdout).toContain(`Nix would take ${path} from ${server.url}`);
    expect(readFileSync(file, "utf8").startsWith(`${BEFORE}\n`)).toBe(true);
    expect(statSync(file).mode & 0o777).toBe(0o640);
    expect(await substitutes(env)).toBe(true);

    const { ino } = statSync(file);
    expect((await use(env, "--mode", "user")).stderr).toContain(`${file} says so already`);
    expect(statSync(file).ino).toBe(ino);

    const removed = await use(env, "--mode", "user", "--remove");
    expect({ code: removed.code, text: readFileSync(file, "utf8") }).toEqual({ code: 0, text: BEFORE });
    expect(statSync(file).mode & 0o777).toBe(0o640);
    expect(await substitutes(await machine())).toBe(false);
  });

  test("the machine's file, where NIX_CONF_DIR has it", async () => {
    const [conf, env] = [cli.path("conf"), await machine()];
    mkdirSync(conf);
    const before = readFileSync(join(env.NIX_CONF_DIR ?? "", "nix.conf"));
    writeFileSync(join(conf, "nix.conf"), before);
    const there = { ...env, NIX_CONF_DIR: conf };
    expect((await use(there, "--mode", "system")).code).toBe(0);
    expect(await substitutes(there)).toBe(true);
    expect((await use(there, "--mode", "system", "--remove")).code).toBe(0);
    expect(readFileSync(join(conf, "nix.conf"))).toEqual(before);
  });

  test("--print and --mode nixos write nothing, and print what Nix can read", async () => {
    const env = await machine();
    const printed = await use(env, "--print", "--mode", "user");
    expect(printed.stdout).toBe(
      `extra-substituters = ${server.url}\nextra-trusted-public-keys = ${publicKey}\nfallback = true\n`,
    );
    expect(await substitutes({ ...env, NIX_CONFIG: printed.stdout })).toBe(true);
    const { stdout } = await use(env, "--mode", "nixos");
    const value = await nix.run("nix-instantiate", ["--eval", "--strict", "--json", "-E", `{ ${stdout} }`]);
    expect(JSON.parse(value)).toEqual({
      nix: {
        settings: {
          "extra-substituters": [server.url],
          "extra-trusted-public-keys": [publicKey],
          fallback: true,
        },
      },
      services: {
        "nixcache-proxy": {
          ...{ enable: true, caches: [cli.path("cache")], port: Number(port()), publicKey },
        },
      },
    });
    expect(readFileSync(file, "utf8")).toBe(BEFORE);
  });

  test("a generated file is left alone, and the lines for NixOS are printed", async () => {
    const [store, conf] = [cli.path("generated"), cli.path("etc")];
    for (const folder of [store, conf]) mkdirSync(folder);
    writeFileSync(join(store, "nix.conf"), "cores = 1\n");
    symlinkSync(join(store, "nix.conf"), join(conf, "nix.conf"));
    const there = { ...(await machine()), NIX_CONF_DIR: conf, NIX_STORE_DIR: store };
    const { code, stdout, stderr } = await use(there, "--mode", "system");
    expect({ code, stderr }).toEqual({
      code: 7,
      stderr: expect.stringContaining("is generated and cannot be changed"),
    });
    expect(stdout).toContain("services.nixcache-proxy = {");
    expect(readFileSync(join(store, "nix.conf"), "utf8")).toBe("cores = 1\n");
  });

  test("what Nix reads later wins, and that is told", async () => {
    const env = { ...(await machine()), NIX_CONFIG: "substituters = https://example.org" };
    const { code, stdout } = await use(env, "--mode", "user");
    expect(code).toBe(16);
    expect(stdout).toContain(`Nix does not ask ${server.url}, only https://example.org`);
    expect(stdout).toContain("look into NIX_CONFIG");
  });

  test("a key by hand needs no registry, and a wrong one is found out", async () => {
    const [env, other] = [await machine(), await keyFile("other-1")];
    const { code, stdout, stderr } = await use(env, "--mode", "user", "--trusted-public-key", other);
    expect(code).toBe(16);
    expect(stdout).toContain(`Nix would refuse ${path}`);
    expect(stderr).toContain("Nix will not use the cache as it is");
    const gone = ["use", "127.0.0.1:9/gone", "--mode", "user", "--port", port()];
    const offline = await cli.run([...gone, "--print", "--trusted-public-key", publicKey], { env });
    expect({ code: offline.code, stdout: offline.stdout }).toEqual({
      code: 0,
      stdout: expect.stringContaining(publicKey),
    });
    const unknown = await cli.run(gone, { env });
    expect(unknown.code).toBe(8);
  });

  test("a cache that is not signed, and an empty one: nothing is written, and why", async () => {
    await publish("unsigned", path);
    for (const [name, reason] of [
      ["unsigned", "nothing in it is signed, and Nix takes no path that no trusted key has signed"],
      ["empty", "nothing was published there yet"],
    ] as const) {
      const { code, stderr } = await cli.run(["use", cli.path(name), "--mode", "user"], {
        env: await machine(),
      });
      expect({ code, stderr }).toEqual({ code: 4, stderr: expect.stringContaining(reason) });
      expect(stderr).toContain("--trusted-public-key");
      expect(readFileSync(file, "utf8")).toBe(BEFORE);
    }
  });

  test("all keys of a cache whose sources are signed by different ones", async () => {
    const other = await nix.build(shellDerivation("used-too", "echo too > $out"));
    const second = await keyFile("used-2");
    await publish("two", path, "--signing-key-file", cli.path("used-1.secret"));
    await publish("two", other, "--signing-key-file", cli.path("used-2.secret"));
    const printed = await cli.run(["use", cli.path("two"), "--print", "--mode", "user"]);
    expect(printed.stdout).toContain(`extra-trusted-public-keys = ${second} ${publicKey}\n`);
  });

  test("without serve it says how to start it; with somebody else there, that", async () => {
    const env = await machine();
    const free = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response("hello") });
    const there = String(free.port);
    const stranger = await cli.run(["use", cli.path("cache"), "--mode", "user", "--port", there], { env });
    expect(stranger.stdout).toContain(`somebody else answers at http://127.0.0.1:${there}: 200 "hello"`);
    await free.stop(true);
    const nobody = await cli.run(["use", cli.path("cache"), "--mode", "user", "--port", there], { env });
    expect(nobody.code).toBe(0);
    expect(nobody.stdout).toContain(`nothing listens there`);
    expect(nobody.stdout).toContain(`Start it: nixcache serve --cache ${cli.path("cache")} --port ${there}`);
    expect(nobody.stderr).toContain("Nix will use the cache once it is served there");
  });

  test("wrong usage", async () => {
    for (const [args, message] of [
      [["--mode", "machine"], "--mode"],
      [["--url", "ftp://x"], "--url"],
      [["--remove", "--print"], "exclude each other"],
      [["--remove", "--mode", "nixos"], "--remove"],
      [["--trusted-public-key", "x"], "--trusted-public-key"],
    ] as const) {
      const { code, stderr } = await cli.run(["use", cli.path("cache"), ...args]);
      expect([2, 4]).toContain(code);
      expect(stderr).toContain(message);
    }
  });

  describe("behind a daemon", () => {
    /** The real daemon over a store of its own, which trusts `trusted`. */
    async function daemon(trusted: string): Promise<{ env: Record<string, string>; stop(): Promise<void> }> {
      const here = cli.path(`daemon-${trusted.length}`);
      const socket = join(here, "socket");
      mkdirSync(join(here, "conf"), { recursive: true });
      const base = await machine();
      const conf = readFileSync(join(base.NIX_CONF_DIR ?? "", "nix.conf"), "utf8");
      writeFileSync(join(here, "conf", "nix.conf"), `${conf}trusted-users = ${trusted}\n`);
      const common = { ...base, NIX_CONF_DIR: join(here, "conf") };
      const child = Bun.spawn(["nix-daemon"], {
        env: { ...common, HOME: here, XDG_CONFIG_HOME: join(here, "config"), NIX_DAEMON_SOCKET_PATH: socket },
        stdin: "ignore",
        stdout: "ignore",
        stderr: "pipe",
      });
      while (!(await connects(socket))) {
        if (child.exitCode !== null) throw new Error(await child.stderr.text());
      }
      return {
        env: { ...common, NIX_REMOTE: `unix://${socket}`, XDG_CACHE_HOME: join(here, "cache") },
        async stop() {
          child.kill("SIGTERM");
          await child.exited;
        },
      };
    }

    test("that does not trust the user: what was written does nothing, and that is explained", async () => {
      const { env, stop } = await daemon("somebody-else");
      try {
        const { code, stdout } = await use(env, "--mode", "user");
        expect(await substitutes(env)).toBe(false);
        expect(code).toBe(16);
        expect(stdout).toContain("who is not among its trusted-users (somebody-else)");
        expect(stdout).toContain(`sudo nixcache use ${cli.path("cache")} --port ${port()} --mode system`);
      } finally {
        await stop();
      }
    });

    test("that trusts the user", async () => {
      const { env, stop } = await daemon("*");
      try {
        const { code, stdout } = await use(env, "--mode", "user");
        expect({ code, stdout }).toEqual({
          code: 0,
          stdout: expect.stringContaining("the Nix daemon trusts"),
        });
        expect(await substitutes(env)).toBe(true);
      } finally {
        await stop();
      }
    });
  });
});

function connects(socket: string): Promise<boolean> {
  if (!existsSync(socket)) return new Promise((resolve) => setImmediate(resolve, false));
  return new Promise((resolve) => {
    const connection = createConnection(socket);
    connection.once("connect", () => resolve(true)).once("error", () => resolve(false));
    connection.once("connect", () => connection.destroy());
  });
}
