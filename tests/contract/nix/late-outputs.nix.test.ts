/** Derivations whose output paths are known after the build alone, built by the real Nix. */
import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BuildOptions, build } from "../../../src/build/build.ts";
import { discover } from "../../../src/build/discover.ts";
import type { Target } from "../../../src/build/discovery.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { SYSTEM } from "../../support/counted-nix.ts";
import { describeWith } from "../../support/needs.ts";
import { flakeText, type TestNix, withNix } from "../../support/nix.ts";

const FEATURES = "extra-experimental-features = ca-derivations impure-derivations dynamic-derivations";

/** In Nix's language: attributes of content-addressed derivations, beside those of `flakeText`. */
const CA = '__contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256";';

const PACKAGES = `
  dep = sh "dep" "echo content > $out" { ${CA} };
  many = sh "many" "mkdir $out; echo \${dep} > $out/x; echo dev > $dev" { outputs = [ "out" "dev" ]; ${CA} };
  deferred = sh "deferred" "cat \${dep} > $out; echo \${many.dev} >> $out" { };
  plain = sh "plain" "echo plain > $out" { };
  fixed = sh "fixed" "printf x > $out" { outputHashMode = "flat"; outputHashAlgo = "sha256";
    outputHash = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"; };
  early = sh "early" "cat \${dep-again} > $out" { };
  dep-again = sh "dep" "echo content > $out; true" { ${CA} };
`;

function withFeatures(nix: TestNix): Record<string, string> {
  return { ...nix.env, NIX_CONFIG: [nix.env.NIX_CONFIG, FEATURES].filter(Boolean).join("\n") };
}

async function targetsOf(nix: TestNix, packages: string, env = withFeatures(nix)) {
  const folder = join(nix.folder, "flake");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "flake.nix"), flakeText(`packages.${SYSTEM} = rec { ${packages} };`));
  return discover({
    ...{ source: { flake: `path:${folder}` }, system: SYSTEM, env, temporary: nix.folder },
    realPath: (path) => nix.realPath(path),
  });
}

async function buildAll(nix: TestNix, targets: readonly Target[], options: Partial<BuildOptions> = {}) {
  const lines: string[] = [];
  const env = withFeatures(nix);
  const onLine = (line: string) => lines.push(line);
  const result = await build(targets, { env, host: { now: () => Date.now() }, onLine, ...options });
  const name = (attribute: string) => attribute.slice(attribute.lastIndexOf(".") + 1);
  const byName = Object.fromEntries(
    result.targets.map(({ target, ...rest }) => [name(target.attribute), rest]),
  );
  return { byName, lines };
}

describeWith(["nix"], "the real Nix", () => {
  test("content-addressed ones, several outputs of one, and what depends on them", async () => {
    await withNix(async (nix) => {
      const { targets, broken } = await targetsOf(nix, PACKAGES);
      expect(broken).toEqual([]);
      const outputs = Object.fromEntries(targets.map(({ name, outputs }) => [name, outputs]));
      expect(outputs).toMatchObject({ many: { dev: null, out: null }, deferred: { out: null } });
      expect(Object.values(outputs.plain ?? {})).not.toContain(null);
      expect(Object.values(outputs.fixed ?? {})).not.toContain(null);

      const { byName, lines } = await buildAll(nix, targets);
      const statuses = Object.values(byName).map(({ status }) => status);
      expect(statuses.filter((status) => status !== "built" && status !== "present")).toEqual([]);
      for (const [name, { status }] of Object.entries(byName)) {
        if (!name.startsWith("dep")) expect([name, status]).toEqual([name, "built"]);
      }
      expect(Object.keys(byName.many?.outputs ?? {})).toEqual(["dev", "out"]);
      const env = withFeatures(nix);
      const store = openNixStore({ env });
      for (const { attribute, drvPath } of targets) {
        const found = byName[attribute.slice(attribute.lastIndexOf(".") + 1)];
        const printed = await nix.run("nix-store", ["--realise", drvPath], { env });
        expect(found?.paths.toSorted()).toEqual(printed.trim().split("\n").sort());
        await store.closure(found?.paths ?? []);
      }
      // Other derivations may come to the same content, and then to the same path.
      expect(byName["dep-again"]?.paths).toEqual(byName.dep?.paths);
      const realised = store.realisations([...(byName.many?.paths ?? []), ...(byName.deferred?.paths ?? [])]);
      expect(realised.size).toBe(3);
      expect(lines.some((line) => line.startsWith("@nix"))).toBe(false);

      const again = await buildAll(nix, targets);
      expect(new Set(Object.values(again.byName).map(({ status }) => status))).toEqual(new Set(["present"]));
      for (const [name, { outputs }] of Object.entries(again.byName))
        expect(outputs).toEqual(byName[name]?.outputs ?? {});
      expect(again.lines.some((line) => line.startsWith("building "))).toBe(false);
    });
  });

  test("one that fails says why, with its log, and what needs it is blocked", async () => {
    await withNix(async (nix) => {
      const { targets } = await targetsOf(
        nix,
        `${PACKAGES}
        bad = sh "bad" "cat \${dep}; echo no luck >&2; exit 3" { ${CA} };
        needs = sh "needs" "cat \${bad} > $out" { };
        also = sh "also" "cat \${needs} > $out" { ${CA} };
        alien = sh "alien" "cat \${dep}" { system = "riscv64-linux"; ${CA} };`,
      );
      const { byName } = await buildAll(nix, targets);
      expect(byName.bad).toMatchObject({
        status: "failed",
        reason: "builder failed with exit code 3",
        paths: [],
      });
      expect(byName.bad?.log?.at(-1)).toBe("no luck");
      expect(byName.needs).toMatchObject({
        status: "blocked",
        reason: "needs bad: builder failed with exit code 3",
      });
      expect(byName.also).toMatchObject({ status: "blocked" });
      expect(byName.alien?.status).toBe("failed");
      expect(byName.alien?.reason).toContain("riscv64-linux");
      for (const name of ["dep", "many", "deferred", "plain", "fixed", "early"])
        expect(["built", "present"]).toContain(byName[name]?.status as string);
    });
  });

  test("an impure one is built once, by one command, and anew the next time", async () => {
    await withNix(async (nix) => {
      const { targets, broken } = await targetsOf(
        nix,
        `impure = sh "impure" "date +%s%N > $out; echo dev > $dev" { __impure = true; outputs = [ "out" "dev" ]; };
         on-impure = sh "on-impure" "cat \${impure} > $out" { __impure = true; };
         ${PACKAGES}`,
      );
      expect(broken).toEqual([]);
      const first = await buildAll(
        nix,
        targets.filter(({ name }) => name === "impure"),
      );
      expect(first.byName.impure).toMatchObject({ status: "built" });
      expect(Object.keys(first.byName.impure?.outputs ?? {})).toEqual(["dev", "out"]);
      const begun = (lines: readonly string[]) =>
        lines.filter((line) => /^building '.*-impure\.drv'/.test(line));
      expect(begun(first.lines).length).toBe(1);
      const second = await buildAll(nix, targets);
      expect(second.byName.impure?.status).toBe("built");
      expect(second.byName["on-impure"]?.status).toBe("built");
      expect(second.byName.impure?.outputs.out).not.toBe(first.byName.impure?.outputs.out);
      expect(second.byName.deferred?.status).toBe("built");
    });
  });

  test("without the feature Nix says so of the attribute, and the others are found", async () => {
    await withNix(async (nix) => {
      const found = await targetsOf(nix, PACKAGES, nix.env);
      expect(found.targets.map(({ name }) => name).sort()).toEqual(["fixed", "plain"]);
      expect(found.broken.map(({ attribute }) => attribute)).toContain(`packages.${SYSTEM}.many`);
      expect(found.broken[0]?.reason).toContain("ca-derivations");
    });
  });

  test("a signal ends the builds, and what was done is still told", async () => {
    await withNix(async (nix) => {
      const { targets } = await targetsOf(
        nix,
        `early = sh "early" "echo early > $out" { ${CA} };
         endless = sh "endless" "cat \${early}; echo begun; sleep 1000" { ${CA} };`,
      );
      const abort = new AbortController();
      const { byName } = await buildAll(nix, targets, {
        signal: abort.signal,
        onLine: (line) => line === "endless> begun" && abort.abort(new Error("stopped")),
      });
      expect(byName.endless?.status).toBe("stopped");
    });
  });
});
