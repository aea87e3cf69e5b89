/** `nixcache gc` as a person or a workflow runs it. Generations get their age from a publisher with another clock. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { ROOT_TYPE } from "../../src/cache/manifests.ts";
import type { PublishRecord } from "../../src/cache/record.ts";
import { openCacheStore } from "../support/audit.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { startGitHub } from "../support/github-packages-double.ts";
import { commitNames, party, TestHost } from "../support/protocol.ts";
import { DOUBLE_REPOSITORY, withDouble } from "../support/registry-double.ts";

const DAY = 24 * 3_600_000;

let cli: Cli;
beforeAll(async () => {
  cli = await openCli();
});
afterAll(() => cli.close());

/** A generation for each age in days, of one path each. */
async function fill(
  cache: string,
  ages: readonly number[],
  record: Partial<PublishRecord> = {},
): Promise<string[]> {
  using publisher = party(openCacheStore(cache), new TestHost(Date.now(), ages[0]));
  const names: string[] = [];
  for (const age of ages) {
    publisher.host.time = Date.now() - age * DAY;
    const branch = { source: "github.com/o/r main", branch: "main", system: "x86_64-linux" };
    names.push(await commitNames(publisher, [`path-${age}`, "shared"], { ...branch, ...record }));
  }
  return names;
}

const tagsOf = async (cache: string) => (await openCacheStore(cache).listTags()).sort();

describe("gc", () => {
  test("of a folder: the dry run says what the run does, with a summary for GitHub Actions", async () => {
    const cache = cli.path("folder");
    const [old, , newest] = await fill(cache, [40, 20, 0.1]);
    await fill(cache, [50], { source: "github.com/o/r pr|7", branch: "pr|7" });
    const summary = cli.path("summary.md");
    const options = { env: { GITHUB_STEP_SUMMARY: summary } };
    const before = await tagsOf(cache);
    const dry = await cli.run(
      ["gc", "--cache", cache, "--dry-run", "--json", "--keep-branch", "main"],
      options,
    );
    expect(dry.code).toBe(0);
    expect(await tagsOf(cache)).toEqual(before);
    const report = JSON.parse(dry.stdout);
    expect(report).toMatchObject({ cache, dryRun: true, excessBytes: 0 });
    expect(report.decisions.map(({ rule, ends }: { rule: string; ends: boolean }) => [rule, ends])).toEqual([
      ["age", true],
      ["age", true],
      ["retention", false],
      ["young", false],
    ]);
    expect(dry.stderr).toContain(`would end ${old} of github.com/o/r main`);
    const markdown = await Bun.file(summary).text();
    expect(markdown).toContain("(dry run)");
    expect(markdown).toContain("| Generation | Source | Would end because |");
    expect(markdown).toContain("pr&#124;7");

    const run = await cli.run(["gc", "--cache", cache, "--keep-branch", "main"]);
    expect(run).toMatchObject({ code: 0, stdout: "" });
    expect(run.stderr).toContain("ended 2 generations of 4");
    const after = await tagsOf(cache);
    expect(after.filter((tag) => tag.startsWith("dead-")).length).toBe(2);
    expect(after).toContain(`seg-${newest}`);
    const again = await cli.run(["gc", "--cache", cache, "--keep-branch", "main"]);
    expect(again.stderr).toContain("ended 0 generations of 2");
    expect(again.stderr).toContain("26 hours");
  });

  test("says so when --max-size cannot be met", async () => {
    const cache = cli.path("large");
    await fill(cache, [3, 2]);
    const { code, stderr } = await cli.run(["gc", "--cache", cache, "--max-size", "10"]);
    expect(code).toBe(0);
    expect(stderr).toContain("larger than --max-size");
    expect((await tagsOf(cache)).filter((tag) => tag.startsWith("dead-")).length).toBe(1);
  });

  test("of nothing: an empty cache is no error, and is not made", async () => {
    const cache = cli.path("none");
    const { code, stderr } = await cli.run(["gc", "--cache", cache]);
    expect(code).toBe(0);
    expect(stderr).toContain("ended 0 generations of 0");
    expect(await readdir(cli.folder)).not.toContain("none");
  });

  test.each([
    ["--retention-days", "-1"],
    ["--retention-days", "soon"],
    ["--keep-last", "0"],
    ["--max-size", "big"],
  ])("%s %s is wrong usage, and nothing is read", async (flag, value) => {
    const { code, stderr } = await cli.run(["gc", "--cache", "/dev/null", `${flag}=${value}`]);
    expect(code).toBe(2);
    expect(stderr).toContain(flag);
  });

  test("at GitHub's registry deletes by GitHub's API, former roots too", () =>
    withDouble(async (registry) => {
      const cache = `${registry.host}/${DOUBLE_REPOSITORY}`;
      const github = startGitHub(registry);
      try {
        await Bun.write(
          cli.path("auth.json"),
          JSON.stringify({ auths: { [registry.host]: { auth: btoa("somebody:ghp_secret") } } }),
        );
        const env = { REGISTRY_AUTH_FILE: cli.path("auth.json"), GITHUB_API_URL: github.url };
        await fillAt(registry.host, [40, 20]);
        const first = await cli.run(["gc", "--cache", cache], { env });
        expect(first).toMatchObject({ code: 0 });
        const segments = () => [...registry.tags.keys()].filter((tag) => tag.startsWith("seg-"));
        expect(segments().length).toBe(2);
        await fillAt(registry.host, [10]);
        const skew = { ...env, CLOCK_SKEW_MS: String(30 * 3_600_000) };
        const args = ["gc", "--cache", cache, "--retention-days", "5"];
        const later = await cli.run(args, { env: skew, program: skewed() });
        expect(later).toMatchObject({ code: 0 });
        expect(later.stderr).toContain("deleted 1 generation that had ended before");
        expect(segments().length).toBe(2);
        const roots = [...registry.manifests.values()].filter(({ bytes }) =>
          new TextDecoder().decode(bytes).includes(ROOT_TYPE),
        );
        expect(roots.length).toBe(1);
        expect(JSON.stringify([first, later])).not.toContain("ghp_secret");
      } finally {
        github.close();
      }
    }));
});

/** The sources with a clock that is off. */
function skewed(): string[] {
  const root = new URL("../../", import.meta.url).pathname;
  return [process.execPath, "--preload", `${root}tests/support/clock.ts`, `${root}src/main.ts`];
}

/** As `fill`, for a registry that wants a password. */
async function fillAt(host: string, ages: readonly number[]): Promise<void> {
  const { openDouble } = await import("../unit/oci/network.ts");
  using publisher = party(
    openDouble({ host }, { password: "ghp_secret", access: "write" }),
    new TestHost(0, ages[0]),
  );
  for (const age of ages) {
    publisher.host.time = Date.now() - age * DAY;
    await commitNames(publisher, [`path-${age}`], { source: "github.com/o/r main", branch: "main" });
  }
}
