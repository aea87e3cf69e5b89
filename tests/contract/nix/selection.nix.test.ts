/** What is named, by names of any kind, by patterns, and by outputs, against the real Nix. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { formatAttributePath } from "../../../src/build/attribute-path.ts";
import { build } from "../../../src/build/build.ts";
import { findDerivations } from "../../../src/build/derivations.ts";
import { nixString } from "../../../src/nix/nix-string.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { anyName } from "../../support/attribute-names.ts";
import { attributes, reasons, SYSTEM, withCountedNix } from "../../support/counted-nix.ts";
import { flakeText, hasNix } from "../../support/nix.ts";
import { propertyParameters } from "../../support/seed.ts";

const OTHER = "riscv64-linux";
const ABSENT = "there is no such attribute";

/** A flake whose packages have these names, each another derivation. */
function packagesNamed(names: readonly string[]): string {
  const list = names.map((name, index) => `${nixString(name)} = sh "n${index}" "mkdir $out" { };`);
  return flakeText(`packages.${SYSTEM} = { ${list.join("\n")} };`);
}

describe.skipIf(!hasNix())("the real Nix", () => {
  test("attributes of any name are found, named, chosen and left out", async () => {
    await withCountedNix(async ({ find, evaluations }) => {
      const drawn = fc.sample(anyName(), { numRuns: 200, ...propertyParameters() });
      const names = [...new Set(drawn)];
      const flake = packagesNamed(names);
      const written = (name: string) => formatAttributePath(["packages", SYSTEM, name]);
      const all = await find(flake);
      expect(attributes(all.targets).sort()).toEqual(names.map(written).sort());
      const byName = new Map(all.targets.map(({ attribute, drvPath }) => [attribute, drvPath]));

      const whole = await find(flake, { outputs: names.map(written), named: true });
      const short = await find(flake, {
        outputs: names.map((name) => formatAttributePath([name])),
        named: true,
      });
      for (const found of [whole, short]) {
        expect(found.missing).toEqual([]);
        expect(found.targets.map(({ attribute, drvPath }) => [attribute, drvPath])).toEqual(
          names.map((name) => [written(name), byName.get(written(name)) as string]),
        );
      }
      for (const name of names.slice(0, 8)) {
        const exclude = [written(name)];
        expect(attributes((await find(flake, { exclude })).targets).sort()).toEqual(
          names
            .filter((other) => other !== name)
            .map(written)
            .sort(),
        );
        expect(attributes((await find(flake, { include: exclude })).targets)).toEqual(exclude);
      }
      // Whatever the names are, one evaluation finds everything.
      expect(evaluations()).toBe(3 + 16);
    });
  }, 120_000);

  test("a name that breaks the evaluation is told by itself", async () => {
    await withCountedNix(async ({ find }) => {
      const odd = ['"', "\\", "\n", `$${"{x}"}`, "é", "\u0001\u0002", ""];
      const list = odd.map((name) => `${nixString(name)} = abort "no";`).join(" ");
      const found = await find(
        flakeText(`packages.${SYSTEM} = { fine = sh "fine" "mkdir $out" { }; ${list} };`),
      );
      expect(attributes(found.targets)).toEqual([`packages.${SYSTEM}.fine`]);
      expect(attributes(found.broken).sort()).toEqual(
        odd.map((name) => formatAttributePath(["packages", SYSTEM, name])).sort(),
      );
    });
  });

  test("a name that is no UTF-8 is not blamed on its neighbours", async () => {
    await withCountedNix(async ({ nix, find }) => {
      const text = flakeText(`
        packages.${SYSTEM} = { a = sh "a" "mkdir $out" { }; "b?" = sh "b" "mkdir $out" { }; };
        devShells.${SYSTEM}.x = sh "x" "mkdir $out" { };
      `);
      const folder = join(nix.folder, "latin1");
      mkdirSync(folder);
      writeFileSync(join(folder, "flake.nix"), text.replace("b?", "b\u00ff"), "latin1");
      const found = await find("{ }", { source: { flake: `path:${folder}` } });
      expect(attributes(found.targets)).toContain(`packages.${SYSTEM}.a`);
      expect(attributes(found.targets)).toContain(`devShells.${SYSTEM}.x`);
      // Nix says it, or cannot, and then the set is told with the reason.
      const told = [...attributes(found.targets), ...attributes(found.broken)];
      expect(told.length).toBe(3);
      for (const reason of Object.values(reasons(found.broken))) expect(reason).toContain("UTF-8");
    });
  });

  test("names as Nix's own command line writes them", async () => {
    await withCountedNix(async ({ find }) => {
      const found = await find(packagesNamed(["C:\\new", "back\\"]), {
        outputs: [String.raw`"C:\new"`, String.raw`"back\"`],
      });
      expect(attributes(found.targets)).toEqual(
        ["C:\\new", "back\\"].map((name) => formatAttributePath(["packages", SYSTEM, name])),
      );
    });
  });

  test("every name that is not there is told by itself", async () => {
    await withCountedNix(async ({ find }) => {
      const text =
        flakeText(`packages.${SYSTEM} = { one = sh "one" "mkdir $out" { }; number = 3; set.deep = 1; };
        lib.f = x: x;`);
      const of = (name: string) => `packages.${SYSTEM}.${name}`;
      const outputs = [
        of("two"),
        of("three"),
        "four",
        `${of("number")}.deeper`,
        "number",
        "lib",
        "one",
        "set",
      ];
      const found = await find(text, { outputs, named: true });
      expect(attributes(found.targets)).toEqual([of("one")]);
      expect(found.broken).toEqual([]);
      expect(reasons(found.missing)).toEqual({
        [of("two")]: ABSENT,
        [of("three")]: ABSENT,
        four: ABSENT,
        [`${of("number")}.deeper`]: `${ABSENT}: ${of("number")} is a number`,
        [of("number")]: "expected a derivation, found a number",
        lib: "there is no derivation in it",
        set: "there is no derivation in it",
      });
    });
  });

  test("a pattern that nothing is like is a fault, and one for another system is not", async () => {
    await withCountedNix(async ({ find }) => {
      const text = flakeText(`
        packages.${SYSTEM} = { one = sh "one" "mkdir $out" { }; bad = throw "bad"; };
        hydraJobs.x = { };
        nixosConfigurations.there.pkgs.stdenv.buildPlatform.system = "${OTHER}";
      `);
      const outputs = ["packages", "nixosConfigurations", "hydraJobs.*.y", "nothing*", "on?"];
      const missing = await find(text, { outputs });
      expect(reasons(missing.missing)).toEqual({
        "hydraJobs.*.y": "nothing is like this",
        "nothing*": "nothing is like this",
      });
      expect(attributes(missing.targets)).toEqual([`packages.${SYSTEM}.one`]);

      const include = [
        "packages.*.one",
        "packages.*.bad",
        "packages.*.gone",
        `packages.${OTHER}.gone`,
        "nixosConfigurations.there.config",
        "**.one",
      ];
      const included = await find(text, { include });
      expect(reasons(included.missing)).toEqual({
        "packages.*.gone": "nothing is like this pattern of --include",
      });
      expect(reasons(included.skipped)[`packages.${OTHER}.gone`]).toStartWith(`it is for ${OTHER}`);

      const fine = [
        "packages.*.one",
        "packages.*.bad.deeper",
        `packages.${OTHER}.gone`,
        "nixosConfigurations",
      ];
      expect((await find(text, { exclude: fine })).targets).toEqual([]);
      for (const pattern of ["packages.*.gone", "typo", "devShells"]) {
        await expect(find(text, { exclude: [...fine, pattern] })).rejects.toThrow(
          `--exclude "${pattern}": nothing that would be built is like this`,
        );
      }
    });
  });

  test("outputs behind a ^, whatever the version of Nix", async () => {
    await withCountedNix(async ({ nix, find }) => {
      const text = flakeText(`packages.${SYSTEM} = {
        default = sh "default" "mkdir $out $dev $doc" { outputs = [ "out" "dev" "doc" ]; };
        "a^dev" = sh "caret" "mkdir $out" { };
      };`);
      const of = (name: string) => `packages.${SYSTEM}.${name}`;
      const outputsOf = async (...outputs: string[]) => {
        const found = await find(text, { outputs, named: true });
        const targets = found.targets.map(({ attribute, outputs }) => [attribute, Object.keys(outputs)]);
        return { targets, missing: reasons(found.missing), found };
      };
      expect((await outputsOf("default^*")).targets).toEqual([[of("default"), ["dev", "doc", "out"]]]);
      expect((await outputsOf("default^out,dev")).targets).toEqual([[of("default"), ["dev", "out"]]]);
      expect((await outputsOf("default^doc", `${of("default")}^out`)).targets).toEqual([
        [of("default"), ["doc", "out"]],
      ]);
      expect((await outputsOf('"a^dev"')).targets).toEqual([[of('"a^dev"'), ["out"]]]);
      expect(await outputsOf("default^dev,man", "gone^*")).toMatchObject({
        targets: [[of("default"), ["dev"]]],
        missing: {
          [`${of("default")}^man`]: "there is no such output; it has dev, doc, out",
          "gone^*": ABSENT,
        },
      });
      await expect(outputsOf("default^")).rejects.toMatchObject({ code: "usage" });

      const { found } = await outputsOf("default^dev");
      const result = await build(found.targets, { env: nix.env, host: { now: () => Date.now() } });
      expect(result.targets).toMatchObject([
        { status: "built", outputs: { dev: expect.stringMatching(/-default-dev$/) } },
      ]);
      expect(result.targets[0]?.paths.length).toBe(1);
    });
  });

  test("derivations by their paths, with and without a choice of outputs", async () => {
    await withCountedNix(async ({ nix }) => {
      const file = join(nix.folder, "drv.nix");
      mkdirSync(join(nix.folder, "links"));
      writeFileSync(
        file,
        `(${flakeText('many = sh "many" "mkdir $out $dev" { outputs = [ "out" "dev" ]; };')}).outputs { self = { }; }`,
      );
      const drv = (await nix.run("nix-instantiate", [file, "-A", "many"])).trim().split("!")[0] as string;
      const link = join(nix.folder, "links", "many.drv");
      await nix.run("ln", ["-s", drv, link]);
      const store = openNixStore({ env: nix.env });
      const name = drv.slice("/nix/store/".length);
      const found = await findDerivations(
        [
          { path: drv, outputs: ["dev"] },
          { path: link, outputs: ["out", "man"] },
          { path: "/nix/store/00000000000000000000000000000000-gone.drv" },
        ],
        store,
        SYSTEM,
      );
      expect(structuredClone(found.targets)).toMatchObject([
        {
          attribute: name,
          name: "many",
          drvPath: drv,
          outputs: { dev: expect.stringMatching(/-many-dev$/), out: expect.stringMatching(/-many$/) },
        },
      ]);
      expect(found.missing.map(({ attribute }) => attribute)).toEqual([
        `${name}^man`,
        "/nix/store/00000000000000000000000000000000-gone.drv",
      ]);
      const result = await build(found.targets, { env: nix.env, host: { now: () => Date.now() } });
      expect(result.targets).toMatchObject([
        { status: "built", paths: [expect.stringMatching(/-many-dev$/), expect.stringMatching(/-many$/)] },
      ]);
    });
  });
});
