/** What Nix's commands do with a cache: each way into it, and each question that they have. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parsePathInfoJson } from "../../src/nix/path-info.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { CONTENT_ADDRESSED, contentAddressed } from "../support/content-addressed.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { flakeText, nixAtLeast, shellDerivation, type TestNix } from "../support/nix.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let publicKey: string;
let caches = 0;

const signing = (cache: string) => [
  ...["--cache", cache, "--upstream", ""],
  ...["--signing-key-file", cli.path("s")],
];

/** A server that answers from the cache as it is now. */
async function serve(
  cache: string,
  args: string[] = ["--cache", cache, "--upstream", ""],
): Promise<CliServer> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++caches}`) };
  const server = await cli.serve(args, { env });
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
  return server;
}

/** Settings with which a Nix takes all from the cache or fails. */
const onlyFrom = (url: string) => [
  ...["--max-jobs", "0", "--option", "substituters", url],
  ...["--option", "require-sigs", "true", "--option", "trusted-public-keys", publicKey],
];

/** A Nix that has nothing and remembers nothing. */
async function fresh(): Promise<Record<string, string>> {
  const root = await nix.emptyStore();
  return { NIX_REMOTE: root, XDG_CACHE_HOME: `${root}-cache` };
}

describeWith(["nix"], "Nix's commands", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    await cli.run(["keygen", "commands-1", cli.path("s"), cli.path("p")]);
    publicKey = (await readFile(cli.path("p"), "utf8")).trim();
  });

  describe("with a cache of a flake", () => {
    let flake: string;
    let server: CliServer;
    let top: string;

    beforeAll(async () => {
      flake = join(nix.folder, "flake");
      await mkdir(flake);
      await writeFile(
        join(flake, "flake.nix"),
        flakeText(`packages.${SYSTEM} = rec {
          base = sh "base" "mkdir $out; echo words > $out/text; ln -s text $out/link" { };
          top = sh "top" "mkdir -p $out/bin; echo $base > $out/bin/run; chmod +x $out/bin/run" { inherit base; };
        };`),
      );
      const args = ["publish", "--flake", flake, ...signing(cli.path("flake-cache")), "--json"];
      const published = await cli.run(args, { env: storeVariables(nix) });
      expect(published).toMatchObject({ code: 0 });
      // Nothing that Nix is asked for by us is a reason for it to warn a person.
      expect(published.stderr).not.toContain("warning:");
      server = await serve(cli.path("flake-cache"));
      const built = await nix.run("nix", ["build", "--no-link", "--json", `path:${flake}#top`]);
      top = JSON.parse(built)[0].outputs.out;
    });

    test("nix build of the same flake elsewhere takes all of it from there", async () => {
      const env = await fresh();
      await nix.run("nix", ["build", "--no-link", ...onlyFrom(server.url), `path:${flake}#top`], { env });
      const base = (await readFile(`${nix.realPath(top, env.NIX_REMOTE)}/bin/run`, "utf8")).trim();
      expect(await readFile(`${nix.realPath(base, env.NIX_REMOTE)}/text`, "utf8")).toBe("words\n");
      await nix.run("nix-store", ["--verify", "--check-contents"], { env });
    });

    test("nix path-info --store says the same of it as of the local store", async () => {
      const ask = async (args: string[], env: Record<string, string>) => {
        const text = await nix.run("nix", ["path-info", "--recursive", "--json", ...args, top], { env });
        return parsePathInfoJson(text, "/nix/store")
          .map(({ path, narHash, narSize, references, deriver }) => ({
            path,
            narHash,
            narSize,
            references,
            deriver,
          }))
          .sort((one, other) => (one.path < other.path ? -1 : 1));
      };
      const theirs = await ask(["--store", server.url], await fresh());
      expect(theirs).toHaveLength(2);
      expect(theirs).toEqual(await ask([], {}));
    });

    test("nix store verify --store checks contents and signatures", async () => {
      const args = ["store", "verify", "--store", server.url, "--recursive", top];
      const trusted = ["--option", "trusted-public-keys", publicKey];
      await nix.run("nix", [...args, ...trusted, "--sigs-needed", "1"], { env: await fresh() });
      await expect(nix.run("nix", [...args, "--sigs-needed", "1"], { env: await fresh() })).rejects.toThrow(
        "untrusted",
      );
    });

    test("nix store ls, cat and ping read it", async () => {
      const env = await fresh();
      const store = ["--store", server.url];
      const base = (await readFile(`${nix.realPath(top)}/bin/run`, "utf8")).trim();
      const listed = await nix.run("nix", ["store", "ls", ...store, "--long", "--recursive", base], { env });
      expect(listed).toMatch(/^-r--r--r-- +6 \.\/text$/m);
      expect(listed).toMatch(/^lrwxrwxrwx +0 \.\/link -> text$/m);
      expect(await nix.run("nix", ["store", "cat", ...store, `${base}/text`], { env })).toBe("words\n");
      await nix.run("nix", ["store", "ping", ...store], { env });
    });

    test("nix copy --from and nix-store --realise fill a store, by the signatures", async () => {
      for (const way of ["copy", "realise"] as const) {
        const client = await openClient(nix, publicKey);
        await client[way](server.url, [top]);
        expect(await client.paths()).toHaveLength(2);
        await client.verify();
        const stranger = await openClient(nix, `commands-1:${Buffer.alloc(32, 5).toString("base64")}`);
        await expect(stranger[way](server.url, [top])).rejects.toThrow();
        expect(await stranger.paths()).toEqual([]);
      }
    });
  });

  describe("with content-addressed derivations", () => {
    /** A fresh one each time, so that each way has something to build. */
    async function expression(name: string): Promise<string> {
      const file = join(nix.folder, `${name}.nix`);
      await writeFile(file, contentAddressed().replaceAll("echo content", `echo ${name}`));
      return file;
    }

    /** By its realisations alone: this Nix has nothing and builds nothing. */
    async function expectSubstituted(cache: string, file: string): Promise<void> {
      const server = await serve(cache);
      const env = await fresh();
      const args = [...CONTENT_ADDRESSED, "--no-out-link", ...onlyFrom(server.url), file];
      const path = (await nix.run("nix-build", args, { env })).trim();
      const dependency = (await readFile(`${nix.realPath(path, env.NIX_REMOTE)}/x`, "utf8")).trim();
      expect(dependency).toEndWith("-dependency");
      await nix.run("nix-store", ["--verify", "--check-contents"], { env });
      await server.stop();
    }

    const ca = ["--option", "experimental-features", "nix-command flakes ca-derivations"];

    test("nix build --json | nixcache publish", async () => {
      const [file, cache] = [await expression("json"), cli.path("ca-json")];
      const stdin = await nix.run("nix", ["build", ...ca, "--no-link", "--json", "-f", file]);
      const published = await cli.run(["publish", ...signing(cache)], { stdin, env: storeVariables(nix) });
      expect(published).toMatchObject({ code: 0 });
      await expectSubstituted(cache, file);
    });

    test("nixcache publish --watch -- nix build", async () => {
      const [file, cache] = [await expression("watch"), cli.path("ca-watch")];
      const args = [
        "publish",
        "--watch",
        ...signing(cache),
        "--",
        "nix",
        "build",
        ...ca,
        "--no-link",
        "-f",
        file,
      ];
      expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
      await expectSubstituted(cache, file);
    });

    test("nixcache publish FLAKE#NAME", async () => {
      const [file, cache] = [await expression("flake"), cli.path("ca-flake")];
      const flake = join(nix.folder, "ca-flake");
      await mkdir(flake);
      const text = (await readFile(file, "utf8")).replaceAll("builtins.currentSystem", `"${SYSTEM}"`);
      await writeFile(join(flake, "ca.nix"), text);
      await writeFile(join(flake, "flake.nix"), flakeText(`packages.${SYSTEM}.top = import ./ca.nix;`));
      const env = { ...storeVariables(nix), NIX_CONFIG: "extra-experimental-features = ca-derivations" };
      const published = await cli.run(["publish", `${flake}#top`, ...signing(cache)], { env });
      expect(published).toMatchObject({ code: 0 });
      await expectSubstituted(cache, file);
    });

    test("nix copy --to", async () => {
      const [file, cache] = [await expression("copy"), cli.path("ca-copy")];
      const server = await serve(cache, [...signing(cache), "--writable"]);
      await nix.run("nix", ["build", ...ca, "--no-link", "-f", file]);
      await nix.run("nix", ["copy", ...ca, "--to", server.url, "-f", file]);
      expect(await server.stop()).toBe(0);
      await expectSubstituted(cache, file);
    });
  });

  test("content addresses of every kind that this Nix makes need no signature", async () => {
    const features = ["--extra-experimental-features", "nix-command blake3-hashes git-hashing"];
    const folder = join(nix.folder, "contents");
    await mkdir(join(folder, "empty"), { recursive: true });
    await writeFile(join(folder, "run"), "#!/bin/sh\n", { mode: 0o755 });
    await symlink("run", join(folder, "link"));
    const add = (...args: string[]) => nix.run("nix-store", ["--add-fixed", ...args]);
    const printed: string[] = [];
    for (const hash of ["md5", "sha1", "sha256", "sha512"])
      printed.push(await add("--recursive", hash, folder));
    printed.push(await add("sha256", join(folder, "run")));
    const text = ["--eval", "--read-write-mode", "--json", "--expr", 'builtins.toFile "text" "words"'];
    printed.push(await nix.run("nix-instantiate", text));
    const added = printed.map((line) => line.trim().replaceAll('"', ""));
    if (nixAtLeast("2.34")) {
      for (const kind of ["nar blake3", "git sha1", "git sha256"]) {
        const [mode = "", hash = ""] = kind.split(" ");
        const args = [
          "store",
          "add",
          "--mode",
          mode,
          "--hash-algo",
          hash,
          "--name",
          `${mode}-${hash}`,
          folder,
        ];
        added.push((await nix.run("nix", [...features, ...args])).trim());
      }
    }

    const cache = ["--cache", cli.path("addresses"), "--upstream", ""];
    const published = await cli.run(["publish", ...added, ...cache], { env: storeVariables(nix) });
    expect(published).toMatchObject({ code: 0 });
    expect(await cli.run(["verify", "--deep", ...cache])).toMatchObject({ code: 0 });
    const server = await serve(cli.path("addresses"));
    const env = await fresh();
    const copy = ["copy", "--option", "require-sigs", "true", "--from", server.url, ...added];
    await nix.run("nix", [...features, ...copy], { env });
    const paths = await nix.run("nix", [...features, "path-info", "--all"], { env });
    expect(paths.trim().split("\n").sort()).toEqual(added.sort());
    await nix.run("nix-store", [...features, "--verify", "--check-contents"], { env });
  });

  test("a post-build-hook of a person's own publishes what was built", async () => {
    const cache = cli.path("hook-cache");
    const hook = join(nix.folder, "hook");
    const publish = [join(import.meta.dir, "../../dist/nixcache"), "publish", ...signing(cache)];
    const kept = ["HOME", "XDG_CACHE_HOME", "TMPDIR", "NIXCACHE_INDEX_DIR"].map(
      (name) => `${name}='${cli.env[name]}'`,
    );
    // Nix 2.8 leaves OUT_PATHS empty: https://github.com/NixOS/nix/issues/6446
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell fills it in.
    const outputs = '${OUT_PATHS:-$(nix-store --query --outputs "$DRV_PATH")}';
    const words = publish.map((word) => `'${word}'`).join(" ");
    await writeFile(hook, `#!/bin/sh\nexec env ${kept.join(" ")} ${words} ${outputs}\n`, { mode: 0o755 });
    const file = join(nix.folder, "hooked.nix");
    await writeFile(file, shellDerivation("hooked", "echo hooked > $out"));
    const path = (
      await nix.run("nix-build", ["--no-out-link", "--option", "post-build-hook", hook, file])
    ).trim();

    const server = await serve(cache);
    const client = await openClient(nix, publicKey);
    await client.realise(server.url, [path]);
    expect(await client.paths()).toEqual([path]);
    await client.verify();
  });
});
