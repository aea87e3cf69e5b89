import { describe, expect, test } from "bun:test";
import {
  findRegistryPrograms,
  type ProgramsHost,
  REGISTRY_PROGRAMS,
} from "../../../scripts/registry-programs.ts";

interface Machine {
  readonly env?: Record<string, string>;
  readonly files?: readonly string[];
  readonly hasGo?: boolean;
  /** What `go` says when it fails, by a part of the module's path. */
  readonly fails?: Record<string, string>;
}

function machine({ env = {}, files = [], hasGo = true, fails = {} }: Machine) {
  const there = new Set(files);
  const commands: { args: readonly string[]; env: Readonly<Record<string, string>> }[] = [];
  const host: ProgramsHost = {
    env: { HOME: "/home/somebody", ...env },
    exists: (file) => there.has(file),
    which: (program) => program === "go" && hasGo,
    go: async (args, env) => {
      commands.push({ args, env });
      const module = args.at(-1) ?? "";
      const failure = Object.entries(fails).find(([part]) => module.includes(part))?.[1];
      if (failure === undefined) there.add(`${env.GOBIN}/${module.replace(/@.*/, "").split("/").at(-1)}`);
      return failure;
    },
    say: () => {},
  };
  return { host, commands };
}

describe("programs of registries", () => {
  test("are built by go install, at fixed versions, each in a folder of its own", async () => {
    const { host, commands } = machine({ env: { XDG_CACHE_HOME: "/cache" } });
    const { programs, skipped } = await findRegistryPrograms(host);
    expect(Object.fromEntries(programs)).toEqual({
      olareg: "/cache/nixcache-tests/olareg-v0.2.2/olareg",
      distribution: "/cache/nixcache-tests/distribution-v3.1.2/registry",
      zot: "/cache/nixcache-tests/zot-v2.1.20/zot",
    });
    expect(commands.map(({ args }) => args.join(" "))).toEqual([
      "install github.com/olareg/olareg/cmd/olareg@v0.2.2",
      "install github.com/distribution/distribution/v3/cmd/registry@v3.1.2",
      "install -tags minimal zotregistry.dev/zot/v2/cmd/zot@v2.1.20",
    ]);
    expect(skipped).toEqual([
      "gitea is skipped: NIXCACHE_TEST_GITEA names no program, and `go install` cannot build it.",
    ]);
  });

  test("are not built again", async () => {
    const olareg = "/home/somebody/.cache/nixcache-tests/olareg-v0.2.2/olareg";
    const { host, commands } = machine({ files: [olareg] });
    expect((await findRegistryPrograms(host)).programs.get("olareg")).toBe(olareg);
    expect(commands.length).toBe(2);
  });

  test("that a variable names are taken as they are", async () => {
    const files = ["/bin/zot", "/bin/gitea"];
    const env = { NIXCACHE_TEST_ZOT: "/bin/zot", NIXCACHE_TEST_GITEA: "/bin/gitea" };
    const { host, commands } = machine({ env, files, hasGo: false });
    const { programs, skipped } = await findRegistryPrograms(host);
    expect(Object.fromEntries(programs)).toEqual({ zot: "/bin/zot", gitea: "/bin/gitea" });
    expect(commands).toEqual([]);
    expect(skipped).toEqual([
      "olareg is skipped: NIXCACHE_TEST_OLAREG names no program, and Go is not installed to build one.",
      "distribution is skipped: NIXCACHE_TEST_DISTRIBUTION names no program, and Go is not installed to build one.",
    ]);
  });

  test("that a variable names and that are not there end the run", async () => {
    const { host } = machine({ env: { NIXCACHE_TEST_ZOT: "/nowhere" } });
    await expect(findRegistryPrograms(host)).rejects.toThrow("NIXCACHE_TEST_ZOT: got /nowhere");
  });

  test("that do not build are skipped, with what Go says", async () => {
    const { host } = machine({
      fails: { zot: "go: downloading x\ngo: zotregistry.dev/zot/v2: 403 Forbidden\n" },
    });
    const { programs, skipped } = await findRegistryPrograms(host);
    expect([...programs.keys()]).toEqual(["olareg", "distribution"]);
    expect(skipped[0]).toBe(
      "zot is skipped: `go install -tags minimal zotregistry.dev/zot/v2/cmd/zot@v2.1.20` failed: go: zotregistry.dev/zot/v2: 403 Forbidden",
    );
  });

  test("have a row each in CONTRIBUTING.md and in the README of the fixtures", async () => {
    const read = (file: string) => Bun.file(new URL(`../../../${file}`, import.meta.url)).text();
    const [contributing, fixtures] = [
      await read("CONTRIBUTING.md"),
      await read("tests/fixtures/registries/README.md"),
    ];
    for (const [name, { variable }] of Object.entries(REGISTRY_PROGRAMS)) {
      expect(contributing).toContain(`| \`${variable}\` |`);
      expect(fixtures).toContain(`| \`${name}.json\` |`);
    }
  });
});
