/**
 * The flake, `default.nix` and what they are made of, evaluated by the real Nix. In the place of nixpkgs there is the
 * double of `tests/support/nixpkgs`; nothing is built and nothing fetched.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import packageJson from "../../../package.json" with { type: "json" };
import { SYSTEMS } from "../../../scripts/nix-release.ts";
import { OPTIONS_DOC, optionsDoc } from "../../../scripts/options-doc.ts";
import { ROOT } from "../../../scripts/process.ts";
import { Cleanup } from "../../support/lease.ts";
import { evaluate, STAND_IN } from "../../support/modules.ts";
import { describeWith, openNix } from "../../support/needs.ts";
import type { TestNix } from "../../support/nix.ts";

/** What the flake consists of. */
const SOURCES = [
  ...[
    "flake.nix",
    "default.nix",
    "nix",
    "package.json",
    "bun.lock",
    "bunfig.toml",
    "tsconfig.json",
    "LICENSE",
  ],
  ...[".github", "config", "src", "scripts", "tests/fixtures/nar", "tests/support/nixpkgs"],
];

interface Fetch {
  readonly url: string;
  readonly hash: string;
}

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let nix: TestNix;

/** The fields of a package in bun.lock: `["name@version", "", { … }, "sha512-…"]`. */
async function lockedPackages(): Promise<Map<string, readonly [string, string, object, string]>> {
  const text = await Bun.file(join(ROOT, "bun.lock")).text();
  const lock = Bun.JSONC.parse(text) as { packages: Record<string, [string, string, object, string]> };
  return new Map(Object.entries(lock.packages));
}

/** A closure by `nix/bun-lock.nix` of this text. */
const closure = async (text: string, platform: string, dev = false): Promise<Record<string, string>[]> => {
  const file = join(nix.folder, "bun.lock");
  await Bun.write(file, text);
  const expression = `map (p: { inherit (p) key folder url hash; })
    ((import ${ROOT}/nix/bun-lock.nix (builtins.readFile ${file})).closure {
      platform = ${platform}; dev = ${dev};
    })`;
  return JSON.parse(await evaluate(nix, expression));
};

const LINUX = '{ os = "linux"; cpu = "x64"; libc = "glibc"; }';

/** A lock file as Bun writes it, with these packages and the dependencies of the project. */
function lockFile(
  dependencies: Record<string, string>,
  packages: Record<string, readonly unknown[]>,
  optional: Record<string, string> = {},
): string {
  const entries = Object.entries(packages).map(([key, entry]) => `    "${key}": ${JSON.stringify(entry)},\n`);
  const own = { name: "x", dependencies, optionalDependencies: optional };
  return `{\n  "lockfileVersion": 1,\n  "workspaces": {\n    "": ${JSON.stringify(own)},\n  },\n  "packages": {\n${entries.join("\n")}  },\n}\n`;
}

const HASH = `sha512-${"A".repeat(86)}==`;
const entry = (spec: string, about: object = {}) => [spec, "", about, HASH];

describeWith(["nix"], "the Nix package", () => {
  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
  });

  test("every Nix file is well-formed", async () => {
    const files: string[] = [];
    for (const pattern of ["*.nix", "{config,nix,scripts,tests}/**/*.nix"])
      files.push(...(await Array.fromAsync(new Bun.Glob(pattern).scan({ cwd: ROOT }))));
    for (const file of ["flake.nix", "default.nix", "nix/vm-test.nix", "config/flake.nix"])
      expect(files).toContain(file);
    await nix.run("nix-instantiate", ["--parse", ...files.map((file) => join(ROOT, file))]);
  });

  test("docs/options.md says what the modules declare (bun run docs:options)", async () => {
    expect(await Bun.file(OPTIONS_DOC).text()).toBe(await optionsDoc());
  });

  describe("bun.lock", () => {
    test("what is installed here is what is laid out", async () => {
      const lock = await Bun.file(join(ROOT, "bun.lock")).text();
      const cpu = process.arch === "arm64" ? "arm64" : "x64";
      const platform = `{ os = "linux"; cpu = "${cpu}"; libc = "glibc"; }`;
      const installed = await Array.fromAsync(
        new Bun.Glob("**/package.json").scan({ cwd: join(ROOT, "node_modules") }),
      );
      // Packages have others in their node_modules; a package.json elsewhere in them is no package.
      const isPackage = /^(@[^/]+\/)?[^@/][^/]*(\/node_modules\/(@[^/]+\/)?[^@/][^/]*)*$/;
      const folders = installed
        .map((file) => file.slice(0, -"/package.json".length))
        .filter((folder) => isPackage.test(folder));
      const found = (await closure(lock, platform, true)).map(({ folder = "" }) => folder);
      expect(found).toEqual(folders.sort());
      const needed = (await closure(lock, platform)).map(({ folder = "" }) => folder);
      for (const name of Object.keys(packageJson.dependencies)) expect(needed).toContain(name);
      for (const name of Object.keys(packageJson.devDependencies)) expect(needed).not.toContain(name);
    });

    test("each package is fetched from npm with the hash of the lock file", async () => {
      const packages = await lockedPackages();
      const lock = await Bun.file(join(ROOT, "bun.lock")).text();
      const all = await closure(lock, LINUX, true);
      expect(all.length).toBeGreaterThan(30);
      for (const { key = "", url, hash } of all) {
        const [spec, , , integrity] = packages.get(key) ?? [];
        const [, name, base, version] = /^((?:@[^/]+\/)?([^@]+))@(.+)$/.exec(spec ?? "") ?? [];
        expect([url, hash]).toEqual([
          `https://registry.npmjs.org/${name}/-/${base}-${version}.tgz`,
          integrity as string,
        ]);
      }
    });

    test("versions that are nested stay so, and whoever asks gets the nearest", async () => {
      const text = lockFile(
        { a: "1", "@s/b": "1" },
        {
          a: entry("a@1.0.0", { dependencies: { c: "1", d: "1" } }),
          "@s/b": entry("@s/b@1.0.0", { dependencies: { "@s/c": "1", c: "2" } }),
          c: entry("c@1.0.0", { dependencies: { d: "1" } }),
          d: entry("d@1.0.0"),
          "@s/c": entry("@s/c@1.0.0"),
          "@s/b/c": entry("c@2.0.0-beta.1", { dependencies: { d: "2", e: "2" } }),
          "@s/b/c/d": entry("d@2.0.0", { dependencies: { c: "2" } }),
          "@s/b/e": entry("e@2.0.0"),
          e: entry("e@1.0.0"),
        },
      );
      expect((await closure(text, LINUX)).map(({ folder, url }) => [folder, url?.split("/").at(-1)])).toEqual(
        [
          ["@s/b", "b-1.0.0.tgz"],
          ["@s/b/node_modules/c", "c-2.0.0-beta.1.tgz"],
          ["@s/b/node_modules/c/node_modules/d", "d-2.0.0.tgz"],
          ["@s/b/node_modules/e", "e-2.0.0.tgz"],
          ["@s/c", "c-1.0.0.tgz"],
          ["a", "a-1.0.0.tgz"],
          ["c", "c-1.0.0.tgz"],
          ["d", "d-1.0.0.tgz"],
        ],
      );
    });

    test.each([
      [LINUX, ["a", "any", "linux-x64", "not-win"]],
      ['{ os = "linux"; cpu = "x64"; libc = "musl"; }', ["a", "any", "linux-x64-musl", "not-win"]],
      ['{ os = "darwin"; cpu = "arm64"; libc = "glibc"; }', ["a", "any", "darwin", "not-win"]],
    ])("optional packages of the platform are taken, others left out: %s", async (platform, folders) => {
      const names = ["linux-x64", "linux-x64-musl", "darwin", "not-win", "win", "any", "not-in-the-lock"];
      const optionalDependencies = Object.fromEntries(names.map((name) => [name, "1"]));
      const text = lockFile(
        {},
        {
          a: entry("a@1.0.0", { optionalDependencies }),
          "linux-x64": entry("linux-x64@1.0.0", { os: "linux", cpu: "x64", libc: "glibc" }),
          "linux-x64-musl": entry("linux-x64-musl@1.0.0", {
            os: "linux",
            cpu: ["arm64", "x64"],
            libc: "musl",
          }),
          darwin: entry("darwin@1.0.0", { os: ["darwin", "freebsd"], cpu: "arm64" }),
          "not-win": entry("not-win@1.0.0", { os: "!win32" }),
          win: entry("win@1.0.0", { os: "win32" }),
          any: entry("any@1.0.0"),
        },
        { a: "1" },
      );
      expect((await closure(text, platform)).map(({ folder = "" }) => folder)).toEqual(folders);
    });

    test("strings of the lock file keep their commas", async () => {
      const text = lockFile({ a: "1" }, { a: entry("a@1.0.0-x, ]") });
      expect((await closure(text, LINUX))[0]?.url).toEndWith("/a-1.0.0-x, ].tgz");
    });

    test.each<[string, Record<string, readonly unknown[]>]>([
      ["expected a package of the npm registry", { a: ["a@github:x/y#0123456", {}, "x-y-0123456"] }],
      ["expected a package of the npm registry", { a: ["a@1.0.0", "https://npm.example/a.tgz", {}, HASH] }],
      ["expected a package of the npm registry", { a: ["a@1.0.0", "", {}, "sha1-AAAA"] }],
      ["expected a package of the npm registry", { a: ["a@workspace:packages/a"] }],
      ["package.json needs a, which is not in it", {}],
      ["a needs b, which is not in it", { a: entry("a@1.0.0", { dependencies: { b: "1" } }) }],
    ])("%s", async (message, packages) => {
      await expect(closure(lockFile({ a: "1" }, packages), LINUX)).rejects.toThrow(message);
    });
  });

  describe("default.nix", () => {
    const instantiate = (attribute: string, pkgs = `import ${STAND_IN} { }`) =>
      nix.run("nix-instantiate", ["--expr", `(import ${ROOT} { pkgs = ${pkgs}; }).${attribute}`]);

    /** The fixed-output fetches that a derivation needs. */
    async function fetches(attribute: string): Promise<Fetch[]> {
      const drv = (await instantiate(attribute)).trim();
      const shown = JSON.parse(await nix.run("nix", ["show-derivation", "--recursive", drv]));
      // Newer versions put them below a key.
      const derivations = shown.derivations ?? shown;
      return Object.values(derivations as Record<string, { env: Record<string, string> }>)
        .filter(({ env }) => env.outputHash !== undefined && env.outputHash !== "")
        .map(({ env }) => ({ url: env.url ?? "", hash: env.outputHash ?? "" }));
    }

    test("the package needs one fetch for each package that it is built of, and nothing else of the network", async () => {
      const lock = await Bun.file(join(ROOT, "bun.lock")).text();
      const wanted = (await closure(lock, LINUX)).map(({ url, hash }) => `${url} ${hash}`);
      const found = (await fetches("default")).map(({ url, hash }) => `${url} ${hash}`);
      expect(found.sort()).toEqual(wanted.sort());
    });

    test("what is built by itself is the package alone", async () => {
      const drvs = await nix.run("nix-instantiate", [
        "--expr",
        `import ${ROOT} { pkgs = import ${STAND_IN} { }; }`,
      ]);
      expect(drvs.trim()).toBe((await instantiate("packages.nixcache")).trim());
    });

    test("what the build does not read does not make it run again", async () => {
      const expression = `import ${ROOT}/nix/source.nix [ "src" "scripts/build.ts" ]`;
      const args = ["--eval", "--read-write-mode", "--json", "--expr", expression];
      const source = JSON.parse(await nix.run("nix-instantiate", args));
      const files = await Array.fromAsync(new Bun.Glob("**").scan({ cwd: nix.realPath(source), dot: true }));
      expect(files).toContain("src/main.ts");
      const outside = files.filter((file) => !file.startsWith("src/"));
      expect(outside).toEqual(["scripts/build.ts"]);
    });

    test("where nixpkgs has a Bun that is too old, npm's of the tested version builds it", async () => {
      const bunOf = async (version: string) => {
        const pkgs = `import ${STAND_IN} { bunVersion = "${version}"; }`;
        const expression = `let pkgs = ${pkgs}; bun = pkgs.callPackage ${ROOT}/nix/bun.nix { }; in
          [ bun.version (bun.src.url or null) (bun.src.outputHash or null) ]`;
        await instantiate("default", pkgs);
        return JSON.parse(await evaluate(nix, expression));
      };
      expect(await bunOf("1.4.0")).toEqual(["1.4.0", null, null]);
      expect(await bunOf("1.3.13")).toEqual([
        packageJson.devDependencies["bun-types"],
        "https://registry.npmjs.org/@oven/bun-linux-x64/-/bun-linux-x64-1.4.5.tgz",
        expect.stringMatching(/^sha512-/),
      ]);
    });

    test("on a machine of another kind the build is refused, as it would make that machine's executable", async () => {
      const cross = `import ${STAND_IN} { system = "aarch64-linux"; buildSystem = "x86_64-linux"; }`;
      await expect(instantiate("default", cross)).rejects.toThrow(
        "nixcache cannot be built on x86_64-unknown-linux-gnu for aarch64-unknown-linux-gnu",
      );
      await instantiate("default", `import ${STAND_IN} { system = "aarch64-linux"; }`);
    });

    test("what the check of types reads is all that it needs", async () => {
      const expression = `(import ${ROOT} { pkgs = import ${STAND_IN} { }; }).checks.types.src`;
      const args = ["--eval", "--read-write-mode", "--json", "--expr", expression];
      const source = nix.realPath(JSON.parse(await nix.run("nix-instantiate", args)));
      const copy = join(nix.folder, "types");
      await cp(source, copy, { recursive: true });
      await symlink(join(ROOT, "node_modules"), join(copy, "node_modules"));
      const tsc = join(ROOT, "node_modules", "typescript", "bin", "tsc");
      await nix.run(process.execPath, [tsc, "--noEmit", "--project", copy]);
      await nix.run(process.execPath, [tsc, "--noEmit", "--project", join(copy, "src/serve/page/client")]);
    });

    test("the overlay and the modules need nothing but pkgs", async () => {
      const expression = `let pkgs = import ${STAND_IN} { }; all = import ${ROOT} { inherit pkgs; }; in {
        overlay = (all.overlays.default (pkgs // { inherit pkgs; }) pkgs).nixcache.drvPath == all.default.drvPath;
        modules = map (module: module._file) [
          all.nixosModules.default all.darwinModules.default all.homeModules.default all.homeManagerModules.default
        ];
        # As in the imports of a configuration, whose pkgs are not known yet then.
        lazy = builtins.attrNames (import ${ROOT} { pkgs = throw "not now"; }).nixosModules;
      }`;
      expect(JSON.parse(await evaluate(nix, expression))).toEqual({
        overlay: true,
        modules: ["nixos", "darwin", "home", "home"].map((name) =>
          join(ROOT, "nix", "modules", `${name}.nix`),
        ),
        lazy: ["default"],
      });
    });
  });

  describe("the package as nixpkgs would have it", () => {
    const attribute = (name: string, pkgs = "") =>
      evaluate(
        nix,
        `let pkgs = import ${STAND_IN} { checkout = ${ROOT}/src; ${pkgs} }; in
         (pkgs.callPackage ${ROOT}/nix/nixpkgs/package.nix { }).${name}`,
      ).then(JSON.parse);

    test("it is of this version, and has what nixpkgs asks for", async () => {
      expect(await attribute("name")).toBe(`nixcache-${packageJson.version}`);
      expect(await attribute("meta")).toMatchObject({
        description: packageJson.description,
        mainProgram: "nixcache",
        broken: false,
        changelog: `https://github.com/OWNER/nixcache/releases/tag/v${packageJson.version}`,
      });
      expect(await attribute("passthru.tests.version.name")).toBe(`nixcache-${packageJson.version}`);
      expect(await attribute("passthru.updateScript")).toEqual(["--subpackage", "nodeModules"]);
    });

    test.each([
      ["an older Bun", 'bunVersion = "1.3.13";'],
      ["another machine to build on", 'system = "aarch64-linux"; buildSystem = "x86_64-linux";'],
    ])("it is broken with %s", async (_, pkgs) => {
      expect(await attribute("meta.broken", pkgs)).toBe(true);
    });
  });

  describe("the flake", () => {
    let flake: string;
    beforeAll(async () => {
      flake = join(nix.folder, "flake");
      for (const source of SOURCES) {
        await mkdir(join(flake, source, ".."), { recursive: true });
        await cp(join(ROOT, source), join(flake, source), { recursive: true });
      }
    });

    /** `nix eval` of an output, with the double in the place of nixpkgs; the only input there is. */
    async function output(path: string, apply = "x: x"): Promise<unknown> {
      const args = ["--override-input", "nixpkgs", `path:${STAND_IN}`, "--no-write-lock-file"];
      const text = await nix.run("nix", [
        "eval",
        "--json",
        ...args,
        `path:${flake}#${path}`,
        "--apply",
        apply,
      ]);
      return JSON.parse(text);
    }

    const names = "builtins.mapAttrs (_: builtins.attrNames)";
    /** Of nixpkgs 26.11, which the double is, and which has given up Intel Macs. */
    const FLAKE_SYSTEMS = SYSTEMS.filter((system) => system !== "x86_64-darwin");
    const forAll = <T>(value: T) => Object.fromEntries(FLAKE_SYSTEMS.map((system) => [system, value]));

    test("nix flake show and check evaluate every attribute", async () => {
      const args = ["--override-input", "nixpkgs", `path:${STAND_IN}`, "--no-write-lock-file"];
      const shown = await nix.run("nix", ["flake", "show", "--json", ...args, `path:${flake}`]);
      expect(Object.keys(JSON.parse(shown))).toEqual([
        ...["apps", "checks", "darwinModules", "devShells", "homeManagerModules", "homeModules"],
        ...["nixosModules", "overlays", "packages"],
      ]);
      await nix.run("nix", ["flake", "check", "--no-build", ...args, `path:${flake}`]);
    });

    test("with a nixpkgs that still has Intel Macs, so has the flake", async () => {
      const expression = `let
        nixpkgs = system: import ${flake}/tests/support/nixpkgs { inherit system; release = "26.05"; };
        inherit (nixpkgs "x86_64-linux") lib;
        all = (import ${flake}/flake.nix).outputs {
          self = all // { outPath = "${flake}"; };
          nixpkgs = {
            inherit lib;
            legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ] nixpkgs;
          };
        };
      in builtins.mapAttrs (_: x: x.default.name) all.packages`;
      expect(Object.keys(JSON.parse(await evaluate(nix, expression)))).toEqual([...SYSTEMS].sort());
    });

    test("packages, apps, shells and checks of each system", async () => {
      expect(await output("packages", names)).toEqual(forAll(["default", "nixcache"]));
      expect(await output("apps", names)).toEqual(forAll(["cache-proxy", "default"]));
      expect(await output("devShells", names)).toEqual(forAll(["default"]));
      expect(await output("checks", names)).toEqual({
        ...forAll(["package", "types"]),
        "x86_64-linux": ["nixos-unit", "package", "types", "vm"],
        "aarch64-linux": ["nixos-unit", "package", "types", "vm"],
      });
    });

    test("all of them evaluate to derivations and programs", async () => {
      const drvs = "builtins.mapAttrs (_: builtins.mapAttrs (_: x: x.drvPath))";
      for (const kind of ["devShells", "checks"]) {
        for (const drv of Object.values((await output(kind, drvs)) as Record<string, object>).flatMap(
          Object.values,
        ))
          expect(drv).toEndWith(".drv");
      }
      const built = "builtins.mapAttrs (_: x: x.default.name)";
      expect(await output("packages", built)).toEqual(forAll(`nixcache-${packageJson.version}`));
      const programs = "builtins.mapAttrs (_: builtins.mapAttrs (_: x: baseNameOf x.program))";
      const [app] = Object.values((await output("apps", programs)) as Record<string, Record<string, string>>);
      expect(app?.default).toBe("nixcache");
      expect(app?.["cache-proxy"]).toEndWith("-cache-proxy");
    });

    test("modules and the overlay, the modules with the package of the flake", async () => {
      const modules = ["nixosModules", "darwinModules", "homeModules", "homeManagerModules", "overlays"];
      for (const kind of modules) expect(await output(kind, "builtins.attrNames")).toEqual(["default"]);
      const expression = `let
        flake = builtins.getFlake "path:${flake}";
        nixpkgs = import ${flake}/tests/support/nixpkgs { };
        all = (import ${flake}/flake.nix).outputs { self = all // { outPath = "${flake}"; }; nixpkgs = {
          inherit (nixpkgs) lib;
          legacyPackages.x86_64-linux = nixpkgs;
          legacyPackages.aarch64-linux = nixpkgs;
          legacyPackages.aarch64-darwin = nixpkgs;
        }; };
        system = nixpkgs.lib.evalModules {
          specialArgs.pkgs = nixpkgs;
          modules = [ all.nixosModules.default (import ${flake}/tests/support/nixpkgs/systems.nix { inherit (nixpkgs) lib; }).nixos ];
        };
      in system.config.services.nixcache-proxy.package.drvPath == all.packages.x86_64-linux.default.drvPath`;
      expect(JSON.parse(await evaluate(nix, expression))).toBe(true);
    });

    test("while nothing is released there is no nixcache-bin, and the overlay has none", async () => {
      await Bun.write(join(flake, "nix", "release.json"), '{ "version": null, "systems": {} }');
      expect(await output("packages.x86_64-linux", "builtins.attrNames")).toEqual(["default", "nixcache"]);
      expect(await output("overlays.default", "f: builtins.attrNames (f { } { })")).toEqual(["nixcache"]);
    });

    test("once something is released, nixcache-bin is fetched from there", async () => {
      const sha256 = "0123456789abcdef".repeat(4);
      const sums = SYSTEMS.map((system) => `${sha256}  nixcache-${system}.tar.gz\n`).join("");
      await Bun.write(join(nix.folder, "SHA256SUMS"), sums);
      const releases = "https://github.com/owner/nixcache/releases/download";
      const script = join(ROOT, "scripts", "nix-release.ts");
      const args = [script, "v1.2.3", releases, join(nix.folder, "SHA256SUMS")];
      await nix.run(process.execPath, args, { cwd: flake });
      const parts =
        "builtins.mapAttrs (_: x: [ x.nixcache-bin.name x.nixcache-bin.src.url x.nixcache-bin.src.outputHash ])";
      expect(await output("packages", parts)).toEqual(
        Object.fromEntries(
          FLAKE_SYSTEMS.map((system) => [
            system,
            ["nixcache-bin-1.2.3", `${releases}/v1.2.3/nixcache-${system}.tar.gz`, sha256],
          ]),
        ),
      );
      expect(await output("overlays.default", "f: builtins.attrNames (f { } { })")).toEqual([
        "nixcache",
        "nixcache-bin",
      ]);
    });
  });
});
