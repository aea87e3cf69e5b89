/** What becomes of targets when the real Nix builds them. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BuildOptions, build } from "../../../src/build/build.ts";
import type { BuildState } from "../../../src/build/build-log.ts";
import { discover } from "../../../src/build/discover.ts";
import { flakeText, hasNix, type TestNix, withNix } from "../../support/nix.ts";

const SYSTEM = `${process.arch === "arm64" ? "aarch64" : "x86_64"}-${process.platform}`;

async function targetsOf(nix: TestNix, packages: string) {
  const folder = join(nix.folder, "flake");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "flake.nix"), flakeText(`packages.${SYSTEM} = rec { ${packages} };`));
  const source = { flake: `path:${folder}` };
  const found = await discover({ source, system: SYSTEM, env: nix.env, temporary: nix.folder });
  expect(found.broken).toEqual([]);
  return found.targets;
}

/** Builds, and gives the lines that Nix wrote with the results by name. */
async function buildAll(
  nix: TestNix,
  targets: Awaited<ReturnType<typeof targetsOf>>,
  options: Partial<BuildOptions> = {},
) {
  const lines: string[] = [];
  const result = await build(targets, {
    env: nix.env,
    host: { now: () => Date.now() },
    onLine: (line) => lines.push(line),
    ...options,
  });
  const byName = Object.fromEntries(result.targets.map(({ target, ...rest }) => [target.name, rest]));
  return { byName, lines, untrusted: result.untrusted };
}

describe.skipIf(!hasNix())("the real Nix", () => {
  test("what fails, what needs it, and everything else", async () => {
    await withNix(async (nix) => {
      const targets = await targetsOf(
        nix,
        `
          fine = sh "fine" "echo words of the build; mkdir $out $dev" { outputs = [ "out" "dev" ]; };
          failing = sh "failing" "for n in $(seq 40); do echo line $n; done; printf '\\\\033[2Jno compiler\\n' >&2; exit 3" { };
          middle = sh "middle" "ln -s \${hidden} $out" { };
          hidden = sh "hidden" "ln -s \${failing} $out" { };
          liar = sh "liar" "true" { };
          wrong = sh "wrong" "echo other > $out" { outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "0000000000000000000000000000000000000000000000000000"; };
          alien = sh "alien" "mkdir $out" { system = "riscv64-linux"; };
          user = sh "user" "ln -s \${alien} $out" { };
          twice = fine;
        `,
      );
      const { byName, lines, untrusted } = await buildAll(nix, targets);
      const statuses = Object.fromEntries(Object.entries(byName).map(([name, { status }]) => [name, status]));
      expect(statuses).toEqual({
        alien: "failed",
        failing: "failed",
        fine: "built",
        hidden: "blocked",
        liar: "failed",
        middle: "blocked",
        user: "blocked",
        wrong: "failed",
      });
      expect(byName.fine?.paths.length).toBe(2);
      expect(byName.fine?.seconds).toBeLessThan(60);
      for (const path of byName.fine?.paths ?? []) await nix.run("nix-store", ["--check-validity", path]);

      expect(byName.failing).toMatchObject({ reason: "builder failed with exit code 3", paths: [] });
      expect(byName.failing?.log?.length).toBe(25);
      expect(byName.failing?.log?.at(-1)).toBe("no compiler");
      expect(byName.middle?.reason).toBe("needs failing: builder failed with exit code 3");
      expect(byName.middle?.log?.at(-1)).toBe("no compiler");
      expect(byName.liar?.reason).toContain("failed to produce output path");
      expect(byName.wrong?.reason).toMatch(
        /^hash mismatch in fixed-output derivation: specified: sha256-A+=* got: /,
      );
      expect(byName.alien?.reason).toContain("riscv64-linux");
      expect(byName.user?.reason).toStartWith("needs alien: ");
      expect(untrusted).toBeUndefined();

      expect(lines).toContain("fine> words of the build");
      expect(lines.filter((line) => line.includes("words of the build")).length).toBe(1);
      expect(lines.some((line) => /^building '.*-fine\.drv'/.test(line))).toBe(true);
      expect(lines.some((line) => line.startsWith("@nix"))).toBe(false);
      expect(lines.join("").includes("\u001b")).toBe(false);
    });
  });

  test("one that fails alone says why, and what is there is not built again", async () => {
    await withNix(async (nix) => {
      const failing = await targetsOf(nix, 'bad = sh "bad" "exit 4" { };');
      const { byName } = await buildAll(nix, failing);
      expect(byName.bad).toMatchObject({ status: "failed", reason: "builder failed with exit code 4" });

      const several = await targetsOf(
        nix,
        'bad-1 = sh "bad-1" "exit 1" { }; bad-2 = sh "bad-2" "exit 1" { }; bad-3 = sh "bad-3" "exit 1" { };',
      );
      const { lines } = await buildAll(nix, several);
      expect(lines.filter((line) => line.endsWith(" will be built:"))).toEqual([
        "these 3 derivations will be built:",
      ]);

      const fine = await targetsOf(
        nix,
        'good = sh "good" "mkdir $out" { }; also = sh "also" "mkdir $out" { };',
      );
      expect((await buildAll(nix, fine.slice(0, 1))).byName.also?.status).toBe("built");
      const states: BuildState[] = [];
      const second = await buildAll(nix, fine, { onState: (state) => states.push(state()) });
      expect(second.byName).toMatchObject({ also: { status: "present" }, good: { status: "built" } });
      expect(new Set(states.flatMap(({ running }) => running))).toEqual(new Set(["good"]));
      // For a moment 2.34 counts what it has just built twice.
      expect(states.map(({ expected }) => expected)).toContain(1);
      expect(states.at(-1)?.built).toBe(1);

      // Nothing is left to do, so Nix is not even started.
      const third = await buildAll(nix, fine, { env: { ...nix.env, PATH: "" } });
      expect(Object.values(third.byName).map(({ status }) => status)).toEqual(["present", "present"]);
    });
  });

  test("what a substituter has is told from what is built, also when it was needed for it", async () => {
    await withNix(async (nix) => {
      const packages = `
        library = sh "library" "echo library > $out" { };
        mine = sh "mine" "cat \${library} > $out; echo mine >> $out" { };
        large = sh "large" "mkdir $out; echo \${library} > $out/x" { };
      `;
      const targets = await targetsOf(nix, packages);
      await buildAll(
        nix,
        targets.filter(({ name }) => name !== "mine"),
      );
      const cache = `file://${nix.folder}/cache`;
      const known = targets
        .filter(({ name }) => name !== "mine")
        .flatMap(({ outputs }) => Object.values(outputs).filter((path) => path !== null));
      await nix.run("nix", ["copy", "--to", cache, ...known]);

      const root = await nix.emptyStore();
      const env = { ...nix.env, NIX_REMOTE: nix.root === undefined ? (nix.env.NIX_REMOTE ?? "") : root };
      const again = await (async () => {
        const source = { flake: `path:${join(nix.folder, "flake")}` };
        return (await discover({ source, system: SYSTEM, env, temporary: nix.folder })).targets;
      })();
      const extraArgs = ["--option", "extra-substituters", cache, "--option", "require-sigs", "false"];
      const { byName, lines } = await buildAll(nix, again, { env, extraArgs });
      if (nix.root === undefined) return expect(byName.large?.status).toBe("present");
      expect(byName).toMatchObject({
        library: { status: "substituted" },
        large: { status: "substituted" },
        mine: { status: "built" },
      });
      expect(lines.some((line) => /^copying path '.*-library' from 'file:/.test(line))).toBe(true);
    });
  });

  test("a signal ends the builds, and what was done is still told", async () => {
    await withNix(async (nix) => {
      const targets = await targetsOf(
        nix,
        `
          early = sh "early" "mkdir $out" { };
          endless = sh "endless" "cat \${early}/x || true; echo begun; sleep 1000; mkdir $out" { };
        `,
      );
      const abort = new AbortController();
      const { byName } = await buildAll(nix, targets, {
        signal: abort.signal,
        onLine: (line) => line === "endless> begun" && abort.abort(new Error("stopped")),
      });
      expect(byName).toMatchObject({
        early: { status: "built" },
        endless: { status: "stopped", reason: "stopped before it was built" },
      });
    });
  });

  test("without a store to ask there is an error, not a list of failures", async () => {
    await withNix(async (nix) => {
      const targets = await targetsOf(nix, 'one = sh "one" "mkdir $out" { };');
      await expect(buildAll(nix, targets, { env: { ...nix.env, PATH: "" } })).rejects.toMatchObject({
        code: "nix-store",
      });
      const { byName } = await buildAll(nix, targets, { extraArgs: ["--no-such-flag"] });
      expect(byName.one).toMatchObject({ status: "failed", reason: expect.stringContaining("no-such-flag") });
    });
  });
});
