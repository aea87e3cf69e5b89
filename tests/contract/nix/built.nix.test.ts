/** What was built: by Nix's database, and by a post-build hook, which also a daemon runs. */
import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { builtPaths, newestPathId } from "../../../src/nix/built.ts";
import { readOutputs } from "../../../src/nix/derivation.ts";
import { configuredHook, hookScript } from "../../../src/nix/post-build-hook.ts";
import { realise } from "../../../src/nix/realise.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { follow } from "../../../src/watch/follow.ts";
import { Queue } from "../../../src/watch/queue.ts";
import { lines } from "../../support/derivation.ts";
import { hasNix, shellDerivation, type TestNix, withNix } from "../../support/nix.ts";

/** `top` refers to `base` and a text, and has two outputs; `other` to nothing. */
const PROJECT = `rec {
  base = ${shellDerivation("base", 'mkdir $out; echo "a base" > $out/file')};
  top = ${shellDerivation("top", `mkdir $out $doc; ln -s \${base} \${builtins.toFile "text" "words"} $out`, 'outputs = [ "out" "doc" ];')};
  other = ${shellDerivation("other", "echo other > $out")};
}`;

const names = (paths: Iterable<string>) => [...paths].map((path) => path.slice("/nix/store/".length + 33));

async function instantiate(nix: TestNix): Promise<string[]> {
  const file = join(nix.folder, "project.nix");
  await writeFile(file, PROJECT);
  return lines(await nix.run("nix-instantiate", ["--quiet", file])).map((line) => line.replace(/!.*/, ""));
}

const derivation = (drvs: readonly string[], name: string) =>
  drvs.find((drv) => drv.endsWith(`-${name}.drv`)) as string;

const outputsIn = (nix: TestNix) => (drv: string) => readOutputs(nix.realPath(drv), drv);

describe.skipIf(!hasNix())("the real Nix", () => {
  test("outputs by their ids: neither sources nor derivations, nor what was substituted", async () => {
    await withNix(async (nix) => {
      const drvs = await instantiate(nix);
      const options = { env: nix.env };
      expect(builtPaths(options, 0).paths).toEqual([]);
      const before = newestPathId(options);
      expect(before).toBeGreaterThan(0);

      await nix.run("nix-store", ["--realise", derivation(drvs, "top")]);
      const first = builtPaths(options, before);
      expect(names(first.paths.map(({ path }) => path))).toEqual(["base", "top-doc", "top"]);
      expect(first.paths.every(({ narSize }) => narSize > 0)).toBe(true);
      expect(first.until).toBe(newestPathId(options));

      await nix.run("nix-store", ["--realise", derivation(drvs, "other")]);
      expect(names(builtPaths(options, first.until).paths.map(({ path }) => path))).toEqual(["other"]);
      const ofOne = builtPaths(options, 0, new Set([derivation(drvs, "base")]));
      expect(names(ofOne.paths.map(({ path }) => path))).toEqual(["base"]);

      // Deleted paths do not give their ids back.
      const [other] = builtPaths(options, first.until).paths;
      const { until } = builtPaths(options, 0);
      await nix.run("nix-store", ["--delete", other?.path as string]);
      expect(newestPathId(options)).toBe(until);
      await nix.run("nix-store", ["--realise", derivation(drvs, "other")]);
      expect(names(builtPaths(options, until).paths.map(({ path }) => path))).toEqual(["other"]);

      // A signed copy in another store was not built there.
      const secret = join(nix.folder, "secret");
      await nix.run("nix-store", [
        "--generate-binary-cache-key",
        "test-1",
        secret,
        join(nix.folder, "public"),
      ]);
      const all = builtPaths(options, 0).paths.map(({ path }) => path);
      await nix.run("nix", ["store", "sign", "--recursive", "--key-file", secret, ...all]);
      const root = await nix.emptyStore();
      await nix.run("nix", ["copy", "--no-check-sigs", "--to", root, ...all]);
      expect(newestPathId({ env: nix.env, storeRoot: root })).toBeGreaterThan(3);
      expect(builtPaths({ env: nix.env, storeRoot: root }, 0).paths).toEqual([]);
    });
  }, 60_000);

  test("a hook that announces, and cannot fail a build", async () => {
    await withNix(async (nix) => {
      const drvs = await instantiate(nix);
      const queue = new Queue(join(nix.folder, "it's a queue"), outputsIn(nix));
      const hook = queue.writeHook(hookScript(queue.folder));
      const args = ["--option", "post-build-hook", hook];
      await nix.run("nix-store", ["--realise", derivation(drvs, "top"), ...args]);
      const announced = queue.read();
      expect([...announced.keys()].sort()).toEqual(
        ["base", "top"].map((name) => derivation(drvs, name).slice("/nix/store/".length)).sort(),
      );
      expect(names([...announced.values()].flat()).sort()).toEqual(["base", "top", "top-doc"]);

      await rm(queue.folder, { recursive: true });
      await nix.run("nix-store", ["--realise", derivation(drvs, "other"), ...args]);
      expect(existsSync(queue.folder)).toBe(false);

      expect(await configuredHook(nix.env)).toBeUndefined();
      const env = { ...nix.env, NIX_CONFIG: `${nix.env.NIX_CONFIG ?? ""}\npost-build-hook = /a/hook` };
      expect(await configuredHook(env)).toBe("/a/hook");
    });
  }, 60_000);

  test("a store behind a daemon, with a database that cannot be read, is followed by the hook", async () => {
    await withNix(async (nix) => {
      const drvs = await instantiate(nix);
      const daemon = await startDaemon(nix);
      try {
        const queue = new Queue(join(nix.folder, "queue"), outputsIn(nix));
        const options = { env: daemon.env, store: openNixStore({ env: daemon.env }), queue: () => queue };
        const drvPaths = [derivation(drvs, "top")];
        const followed = await follow(drvPaths, options);
        if (typeof followed === "string") throw new Error(followed);
        expect(followed.extraArgs).toEqual(["--option", "post-build-hook", expect.any(String)]);
        expect(followed.source.news()).toEqual([]);
        const said: string[] = [];
        const ended = await realise(drvPaths, {
          env: daemon.env,
          extraArgs: followed.extraArgs,
          onEvent: (event) => event.action === "message" && said.push(event.text),
        });
        expect({ ...ended, said }).toMatchObject({ exitCode: 0 });
        const paths = followed.source.news().map(({ path }) => path);
        expect(names(paths).sort()).toEqual(["base", "top", "top-doc"]);
        expect(followed.source.news()).toEqual([]);
        // Another process finds what this one leaves.
        const next = await follow(drvPaths, options);
        if (typeof next === "string") throw new Error(next);
        expect(next.source.news().map(({ path }) => path)).toEqual(paths);
        next.source.committed(paths);
        expect(queue.read().size).toBe(0);

        const taken = { ...daemon.env, NIX_CONFIG: `${nix.env.NIX_CONFIG ?? ""}\npost-build-hook = /a/hook` };
        expect(await follow(drvPaths, { ...options, env: taken })).toContain("/a/hook is set already");
        await rm(daemon.database);
        expect(await follow(drvPaths, options)).toContain("is not on this machine");
      } finally {
        await daemon.close();
      }
    });
  }, 60_000);

  test("where the database can be read, the outputs of all that is needed, built before or now", async () => {
    await withNix(async (nix) => {
      const drvs = await instantiate(nix);
      await nix.run("nix-store", ["--realise", derivation(drvs, "base"), derivation(drvs, "other")]);
      const options = {
        env: nix.env,
        store: openNixStore({ env: nix.env }),
        queue: () => {
          throw new Error("not needed");
        },
      };
      const followed = await follow([derivation(drvs, "top")], options);
      if (typeof followed === "string") throw new Error(followed);
      expect(followed.extraArgs).toEqual([]);
      expect(names(followed.source.news().map(({ path }) => path))).toEqual(["base"]);
      expect(followed.source.news()).toEqual([]);
      await nix.run("nix-store", ["--realise", derivation(drvs, "top")]);
      expect(names(followed.source.news().map(({ path }) => path)).sort()).toEqual(["top", "top-doc"]);
    });
  }, 60_000);
});

/** A daemon of the chroot store, and an environment that goes through it and has no database to read. */
async function startDaemon(nix: TestNix) {
  const socket = join(nix.folder, "socket");
  const state = join(nix.folder, "elsewhere");
  const database = join(state, "db", "db.sqlite");
  await mkdir(join(state, "db"), { recursive: true });
  await writeFile(database, "no database, and not empty either".repeat(100));
  const child = Bun.spawn(["nix-daemon"], {
    env: { ...nix.env, NIX_DAEMON_SOCKET_PATH: socket },
    stdout: "ignore",
    stderr: "ignore",
  });
  const remote = `unix://${socket}?${new URLSearchParams({ ...(nix.root && { root: nix.root }), state })}`;
  const env = { ...nix.env, NIX_REMOTE: remote };
  for (let tries = 0; !existsSync(socket); tries++) {
    if (tries === 200) throw new Error("nix-daemon does not start");
    await Bun.sleep(50);
  }
  return {
    ...{ env, database },
    close: async () => {
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}
