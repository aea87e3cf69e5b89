/** What is found in flakes and files by the real Nix, and in how many evaluations. */
import { describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defaultFlake } from "../../../src/build/discover.ts";
import { memoryOf } from "../../../src/system/memory.ts";
import { attributes, reasons, SYSTEM, withCountedNix } from "../../support/counted-nix.ts";
import { flakeText, hasNix, shellDerivation } from "../../support/nix.ts";

const OTHER = "riscv64-linux";

describe.skipIf(!hasNix())("the real Nix", () => {
  test("packages, hosts and shells of this system are found in one evaluation", async () => {
    await withCountedNix(async ({ nix, find, evaluations }) => {
      const found = await find(
        flakeText(`
          packages.${SYSTEM} = {
            one = sh "one-1.0" "mkdir $out" { };
            many = sh "many-2" "mkdir $out $dev" { outputs = [ "out" "dev" ]; };
            "dotted.name" = sh "dotted" "mkdir $out" { };
          };
          packages.${OTHER}.foreign = abort "packages of other systems are not evaluated";
          devShells.${SYSTEM}.default = sh "shell" "mkdir $out" { };
          devShells.${OTHER} = abort "shells of other systems are not evaluated";
          nixosConfigurations = {
            here.config.system.build.toplevel = sh "nixos-here" "mkdir $out" { };
            there = {
              pkgs.stdenv.buildPlatform.system = "${OTHER}";
              config = abort "hosts of other systems are not evaluated";
            };
            bare.config.system.build.toplevel = sh "nixos-bare" "mkdir $out" { system = "${OTHER}"; };
          };
          checks = abort "checks are not asked for";
          lib = abort "a library is no output";
        `),
      );
      expect(found.broken).toEqual([]);
      expect(attributes(found.targets)).toEqual([
        `packages.${SYSTEM}."dotted.name"`,
        `packages.${SYSTEM}.many`,
        `packages.${SYSTEM}.one`,
        "nixosConfigurations.here.config.system.build.toplevel",
        `devShells.${SYSTEM}.default`,
      ]);
      expect(reasons(found.skipped)).toEqual({
        "nixosConfigurations.bare.config.system.build.toplevel": `it is for ${OTHER}, and this machine is ${SYSTEM}`,
        "nixosConfigurations.there": `it is for ${OTHER}, and this machine is ${SYSTEM}`,
      });
      expect(evaluations()).toBe(1);

      const many = found.targets[1];
      expect(many).toMatchObject({ name: "many-2", system: SYSTEM });
      expect(Object.keys(many?.outputs ?? {})).toEqual(["dev", "out"]);
      const queried = await nix.run("nix-store", ["--query", "--outputs", many?.drvPath ?? ""]);
      expect(queried.trim().split("\n").sort() as unknown[]).toEqual(
        Object.values(many?.outputs ?? {}).sort(),
      );
      // The same derivation that Nix's own command line finds.
      const flake = `path:${join(nix.folder, "flake-1")}#packages.${SYSTEM}.one.drvPath`;
      expect(found.targets[2]?.drvPath).toBe((await nix.run("nix", ["eval", "--raw", flake])).trim());
      expect(existsSync(join(nix.folder, "flake-1", "flake.lock"))).toBe(false);
    });
  });

  test("broken attributes are listed with Nix's message, and the others are found", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const found = await find(
        flakeText(`
          packages.${SYSTEM} = {
            a = sh "a" "mkdir $out" { };
            b-type = 1 + "x";
            c-thrown = throw "Package ‘c’ has an unfree license, refusing to evaluate.\\n\\nLong advice";
            d-argument = sh "d" "mkdir $out" { input = { }.nothing; };
            e-assert = assert 1 == 2; 3;
            f-abort = abort "gone";
            g-number = 7;
            h-endless = let x = y; y = x; in x;
            i-deep = sh "i" "mkdir $out" { license = throw "deep inside"; };
            z = sh "z" "mkdir $out" { };
          };
          nixosConfigurations.lacking.config = { };
          devShells = throw "no shells at all";
        `),
      );
      expect(attributes(found.targets)).toEqual([`packages.${SYSTEM}.a`, `packages.${SYSTEM}.z`]);
      const of = (name: string) => `packages.${SYSTEM}.${name}`;
      const messages = reasons(found.broken);
      expect(messages[of("b-type")]).toContain("cannot");
      expect(messages[of("c-thrown")]).toBe("Package ‘c’ has an unfree license, refusing to evaluate.");
      expect(messages[of("d-argument")]).toContain("attribute 'nothing' missing");
      expect(messages[of("e-assert")]).toMatch(/assertion .*failed/);
      expect(messages[of("f-abort")]).toContain("gone");
      expect(messages[of("g-number")]).toBe("expected a derivation, found a number");
      expect(messages[of("h-endless")]).toContain("infinite recursion");
      expect(messages[of("i-deep")]).toBe("deep inside");
      expect(messages["nixosConfigurations.lacking.config.system.build.toplevel"]).toBe(
        "there is no such attribute",
      );
      expect(messages.devShells).toBe("no shells at all");
      expect(Object.keys(messages).length).toBe(10);
      // One, four more for those that end an evaluation, four for the messages of those that throw.
      expect(evaluations()).toBe(9);
    });
  });

  test("the messages of many that throw are not all asked for", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const found = await find(
        flakeText(`packages.${SYSTEM} = builtins.listToAttrs (builtins.genList (n: {
          name = "p\${toString n}"; value = throw "message \${toString n}"; }) 40);`),
      );
      expect(found.broken.length).toBe(40);
      expect(found.broken.filter(({ reason }) => reason.startsWith("message ")).length).toBe(10);
      expect(evaluations()).toBe(11);
    });
  });

  test("apps give what their programs come from, and only what is asked for is looked at", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const found = await find(
        flakeText(`
          apps.${SYSTEM} = {
            run = { type = "app"; program = "\${sh "tool" "mkdir $out $dev" { outputs = [ "out" "dev" ]; }}/bin/run"; };
            file = { type = "app"; program = toString ./flake.nix; };
            bad = { type = "app"; program = "\${sh "bad" "mkdir $out" { x = throw "no program"; }}/bin/run"; };
          };
          checks.${SYSTEM}.unit = sh "unit" "mkdir $out" { };
          homeConfigurations.me.activationPackage = sh "home" "mkdir $out" { };
          darwinConfigurations.mac = {
            pkgs.stdenv.buildPlatform.system = "aarch64-darwin";
            system = abort "hosts of other systems are not evaluated";
          };
          packages.${SYSTEM} = abort "packages are not asked for";
        `),
        { outputs: ["apps", "checks", "homeConfigurations", "darwinConfigurations"] },
      );
      expect(attributes(found.targets)).toEqual([
        `apps.${SYSTEM}.run`,
        `checks.${SYSTEM}.unit`,
        "homeConfigurations.me.activationPackage",
      ]);
      expect(found.targets[0]).toMatchObject({ name: "tool", system: SYSTEM });
      expect(Object.keys(found.targets[0]?.outputs ?? {})).toEqual(["dev", "out"]);
      expect(attributes(found.skipped)).toEqual([`apps.${SYSTEM}.file`, "darwinConfigurations.mac"]);
      expect(reasons(found.broken)).toEqual({ [`apps.${SYSTEM}.bad`]: "no program" });
      expect(evaluations()).toBe(2);
    });
  });

  test("sets in legacyPackages are looked into where they say so", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const found = await find(
        flakeText(`
          legacyPackages.${SYSTEM} = {
            a = sh "a" "mkdir $out" { };
            inner = { recurseForDerivations = true; b = sh "b" "mkdir $out" { }; lib.f = x: x;
              deeper = { recurseForDerivations = true; broken = { }.gone; c = sh "c" "mkdir $out" { }; }; };
            hidden = { d = abort "hidden"; };
            text = "a text is no package";
            z = sh "z" "mkdir $out" { };
          };
        `),
        { outputs: ["legacyPackages"] },
      );
      const of = (name: string) => `legacyPackages.${SYSTEM}.${name}`;
      expect(attributes(found.targets)).toEqual(["a", "inner.b", "inner.deeper.c", "z"].map(of));
      expect(attributes(found.broken)).toEqual([of("inner.deeper.broken")]);
      expect(evaluations()).toBe(2);
    });
  });

  test("attribute paths are searched for as nix build does it", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const text = flakeText(`
        packages.${SYSTEM} = { tool = sh "tool" "mkdir $out" { }; bad = abort "not asked for"; };
        legacyPackages.${SYSTEM} = { tool = abort "packages come first"; set.member = sh "member" "mkdir $out" { }; };
        hydraJobs = { one.x = sh "one-x" "mkdir $out" { }; two.x = sh "two-x" "mkdir $out" { }; two.y = abort "y"; };
      `);
      const found = await find(text, {
        outputs: ["tool", "set.member", "hydraJobs.*.x", "nothing.here", ".tool", "hydraJobs.t?o.x"],
      });
      expect(attributes(found.targets)).toEqual([
        `packages.${SYSTEM}.tool`,
        `legacyPackages.${SYSTEM}.set.member`,
        "hydraJobs.one.x",
        "hydraJobs.two.x",
      ]);
      expect(found.broken).toEqual([]);
      expect(reasons(found.missing)).toEqual({
        "nothing.here": "there is no such attribute",
        ".tool": "there is no such attribute",
      });
      expect(evaluations()).toBe(1);
    });
  });

  test("more names and patterns than an argument can hold, of a flake and of a file", async () => {
    await withCountedNix(async ({ nix, find, evaluations }) => {
      const long = "long-name-".repeat(30);
      const set = `builtins.listToAttrs (builtins.genList (n: {
        name = "${long}\${toString n}"; value = sh "n\${toString n}" "mkdir $out" { }; }) 700)`;
      const names = Array.from({ length: 700 }, (_, index) => `${long}${index}`);
      const exclude = names.slice(0, 60).map((name) => `**.${name}`);
      const found = await find(flakeText(`packages.${SYSTEM} = ${set};`), { outputs: names, exclude });
      expect(found.broken).toEqual([]);
      expect(attributes(found.targets)).toEqual(names.slice(60).map((name) => `packages.${SYSTEM}.${name}`));
      expect(evaluations()).toBe(1);

      const file = join(nix.folder, "many.nix");
      writeFileSync(file, `(${flakeText(`all = ${set};`)}).outputs { self = { }; }`);
      const outputs = names.map((name) => `all.${name}`);
      const parts = await find("", { source: { file }, outputs });
      expect(attributes(parts.targets)).toEqual(outputs);
      expect(evaluations()).toBe(1);
    });
  });

  test("what patterns leave out is not evaluated", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const text = flakeText(`
        packages.${SYSTEM} = {
          foo-a = sh "foo-a" "mkdir $out" { }; foo-b = abort "excluded"; bar = abort "not included";
        };
        nixosConfigurations.web.config.system.build.toplevel = sh "web" "mkdir $out" { };
        nixosConfigurations.db = abort "not included";
        devShells = abort "not included";
      `);
      const found = await find(text, {
        include: ["packages.*.foo*", "nixosConfigurations.web"],
        exclude: ["**.*-b"],
      });
      expect(found.broken).toEqual([]);
      expect(attributes(found.targets)).toEqual([
        `packages.${SYSTEM}.foo-a`,
        "nixosConfigurations.web.config.system.build.toplevel",
      ]);
      expect(evaluations()).toBe(1);
    });
  });

  test("several evaluations, at once and after another, find what one finds", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const hosts = Array.from({ length: 12 }, (_, index) => {
        const odd = [
          'abort "no"',
          'throw "not now"',
          "{ }",
          `sh "nixos-${index}" "mkdir $out" { system = "${OTHER}"; }`,
        ];
        const value = odd[index - 4] ?? `sh "nixos-${index}" "mkdir $out" { }`;
        return `"h ${index}".config.system.build${index === 6 ? " = { }" : `.toplevel = ${value}`};`;
      });
      const text = flakeText(`
        packages.${SYSTEM} = { a = sh "a" "mkdir $out" { }; b = { }.gone; c = sh "c" "mkdir $out" { }; d = 1; };
        nixosConfigurations = {
          ${hosts.join("\n")}
          there = { pkgs.stdenv.buildPlatform.system = "${OTHER}"; config = abort "of another system"; };
        };
        devShells.${SYSTEM}.default = sh "shell" "mkdir $out" { };
        hydraJobs.x.y = sh "y" "mkdir $out" { };
      `);
      const outputs = ["packages", "nixosConfigurations", "devShells", "hydraJobs.*.*", "gone*"];
      const { lines: _, ...one } = await find(text, { outputs });
      expect(one.targets.length).toBe(12);
      expect(one.broken.length).toBe(5);
      const single = evaluations();
      const full = { limit: 1, used: () => 2 };
      const free = { limit: 2, used: () => 1 };
      for (const [processes, memory] of [
        [1, full],
        [3, free],
        [3, full],
      ] as const) {
        const { lines: _, ...several } = await find(text, { outputs, processes, memory });
        expect(several).toEqual(one);
        expect(evaluations()).toBeGreaterThan(single);
      }
      // A process that is asked for by its number is one.
      const seen: number[] = [];
      const used = (pid: number) => {
        seen.push(memoryOf(pid) ?? 0);
        return 0;
      };
      await find(text, { outputs, memory: { limit: 1024 ** 4, used } });
      expect(Math.max(...seen)).toBeGreaterThan(1024 ** 2);
    });
  });

  test("a file without flakes, whole and in parts", async () => {
    await withCountedNix(async ({ nix, find }) => {
      const file = join(nix.folder, "default.nix");
      writeFileSync(
        file,
        `{ system ? builtins.currentSystem }:
        let outputs = (${flakeText(`
          a = sh "a" "mkdir $out" { };
          set = { recurseForDerivations = true; b = sh "b" "mkdir $out" { }; };
          other = { c = sh "c" "mkdir $out" { }; };
          number = 1; bad = 1 + "x"; thrown = throw "thrown";
        `)}).outputs { self = { }; };
        in assert system == "${SYSTEM}"; outputs`,
      );
      const whole = await find("", { source: { file } });
      expect(attributes(whole.targets)).toEqual(["a", "set.b"]);
      expect(attributes(whole.broken)).toEqual(["bad", "thrown"]);
      const parts = await find("", { source: { file }, outputs: ["other", "a", "gone"] });
      expect(attributes(parts.targets)).toEqual(["other.c", "a"]);
      expect(reasons(parts.missing)).toEqual({ gone: "there is no such attribute" });

      writeFileSync(file, `{ n ? "one" }: ${shellDerivation("single", "mkdir $out", "x = n;")}`);
      const single = await find("", { source: { file: nix.folder } });
      expect(single.targets).toMatchObject([{ attribute: "", name: "single" }]);
    });
  });

  test("a git tree keeps its revision, its evaluation is pure, and no lock file is written", async () => {
    await withCountedNix(async ({ nix, find }) => {
      const folder = join(nix.folder, "tree");
      const flake = join(folder, "config");
      mkdirSync(flake, { recursive: true });
      const library = join(nix.folder, "library");
      mkdirSync(library);
      writeFileSync(join(library, "flake.nix"), '{ outputs = { self }: { text = "from an input"; }; }');
      const text = flakeText(`packages.${SYSTEM} = {
        rev = sh "rev-\${self.rev or "none"}" "mkdir $out" { };
        pure = sh "pure-\${builtins.getEnv "HOME"}" "mkdir $out" { input = library.text; };
      };`).replace("{ self }", "{ self, library }");
      writeFileSync(join(flake, "flake.nix"), text.replace("{", `{ inputs.library.url = "path:${library}";`));
      expect(defaultFlake(folder)).toBe("./config");
      expect(defaultFlake(flake)).toBeUndefined();
      const git = (...args: string[]) =>
        nix.run("git", ["-c", "user.name=n", "-c", "user.email=e", ...args], { cwd: folder });
      await git("init", "--quiet");
      await git("add", ".");
      await nix.run("nix", ["flake", "lock", "./config"], { cwd: folder });
      await git("add", ".");
      await git("commit", "--quiet", "-m", "first");
      const rev = (await git("rev-parse", "HEAD")).trim();

      const clean = await find("", { source: { flake: "./config" }, cwd: folder });
      expect(clean.broken).toEqual([]);
      expect(clean.targets.map(({ name }) => name)).toEqual(["pure-", `rev-${rev}`]);
      expect(await git("status", "--porcelain")).toBe("");

      rmSync(join(flake, "flake.lock"));
      const dirty = await find("", { source: { flake: "./config" }, cwd: folder });
      expect(dirty.targets.map(({ name }) => name)).toEqual(["pure-", "rev-none"]);
      expect(await git("status", "--porcelain")).toBe(" D config/flake.lock\n");
      expect(dirty.lines.filter((line) => line.includes("is dirty")).length).toBe(1);
    });
  });

  test("what must be built to evaluate is built, and Nix's words reach the user", async () => {
    await withCountedNix(async ({ find }) => {
      const found = await find(
        flakeText(`packages.${SYSTEM} = {
          made = builtins.trace "a word of the flake" (sh "built-\${toString (import (sh "sum.nix" "echo 1 + 1 > $out" { }))}" "mkdir $out" { });
          unmade = sh (import (sh "fails.nix" "exit 3" { })) "mkdir $out" { };
        };`),
      );
      expect(found.targets.map(({ name }) => name)).toEqual(["built-2"]);
      expect(found.broken).toEqual([
        {
          attribute: `packages.${SYSTEM}.unmade`,
          reason: expect.stringContaining("failed with exit code 3"),
        },
      ]);
      expect(found.lines).toContain("trace: a word of the flake");
      expect(found.lines.some((line) => line.includes("building '"))).toBe(true);
      expect(found.lines.some((line) => line.includes("nixcache-walk"))).toBe(false);
    });
  });

  test.each<[string, string, RegExp]>([
    ["a flake that cannot be parsed", "{ outputs = ", /^cannot evaluate the flake path:.*: syntax error/],
    ["outputs that throw", '{ outputs = _: throw "no outputs"; }', /: no outputs$/],
    ["outputs that are no set", "{ outputs = _: 3; }", /^cannot evaluate the flake path:.*/],
  ])("%s is an error", async (_, text, message) => {
    await withCountedNix(async ({ find }) => {
      expect(find(text)).rejects.toThrow(message);
      await find(text).catch((error) => expect(error.code).toBe("nix-store"));
    });
  });

  test("a flake that is not there is an error, and so are words that are no source", async () => {
    await withCountedNix(async ({ nix, find }) => {
      const flake = `path:${nix.folder}/none`;
      await expect(find("{ }", { source: { flake } })).rejects.toThrow(
        /cannot evaluate the flake path:.*none/,
      );
      for (const source of [{ flake: "--expr" }, { flake: "a#b" }, { file: "-x" }, { file: "" }]) {
        await expect(find("{ }", { source })).rejects.toMatchObject({ code: "usage" });
      }
      await expect(find("{ }", { outputs: ["a..b"] })).rejects.toMatchObject({ code: "usage" });
    });
  });

  test("a signal ends the evaluation", async () => {
    await withCountedNix(async ({ find }) => {
      const abort = new AbortController();
      const reason = new Error("stopped");
      // Calculates for hours once it has said so.
      const text = flakeText(`packages.${SYSTEM}.slow = builtins.trace "begun"
        (builtins.foldl' (a: b: a + b) 0 (builtins.concatMap (n: builtins.genList (m: m) 1000000) (builtins.genList (n: n) 100000)));`);
      const onLine = (line: string) => line.includes("begun") && abort.abort(reason);
      await expect(find(text, { signal: abort.signal, onLine })).rejects.toBe(reason);
    });
  });
});
