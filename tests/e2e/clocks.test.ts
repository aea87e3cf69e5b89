/** Machines whose clock is off, at a registry whose clock is right: the real one. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { generationTime, parseTag } from "../../src/cache/tags.ts";
import { openCacheStore } from "../support/audit.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { commitNames, party, storeHash, TestHost } from "../support/protocol.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

let cli: Cli;
let registry: TestRegistry;
beforeAll(async () => {
  cli = await openCli();
  registry = await startRegistry();
});
afterAll(async () => {
  await registry.close();
  await cli.close();
});

/** A cache with generations of one branch, of 40, 20.5 and 2 days ago. */
async function filled(name: string): Promise<string> {
  const cache = `${registry.host}/${name}`;
  const store = openCacheStore(cache);
  for (const age of [40, 20.5, 2]) {
    using publisher = party(store, new TestHost(Date.now() - age * DAY, age));
    await commitNames(publisher, [`path-${Math.floor(age)}`], {
      source: "github.com/o/r main",
      branch: "main",
    });
  }
  return cache;
}

/** Runs the sources on a machine whose clock is that far ahead. */
function runAt(ahead: number, args: readonly string[]) {
  const root = new URL("../../", import.meta.url).pathname;
  const program = [process.execPath, "--preload", `${root}tests/support/clock.ts`, `${root}src/main.ts`];
  const env = {
    CLOCK_SKEW_MS: String(ahead),
    SERVERS_KEEP_TIME: "1",
    NIXCACHE_INDEX_DIR: cli.path(`index-${args[2]?.replaceAll(/\W/g, "-")}`),
  };
  return cli.run(args, { env, program });
}

const tagsOf = async (cache: string) => (await openCacheStore(cache).listTags()).sort();
const deadOf = async (cache: string) => (await tagsOf(cache)).filter((tag) => tag.startsWith("dead-"));

test.each([3 * HOUR, -3 * HOUR, 30 * DAY, -30 * DAY])(
  "what is written by a clock that is %p ms ahead is named by the registry's, and both times are told",
  async (ahead) => {
    const cache = await filled(`named${ahead}`);
    const before = new Set(await tagsOf(cache));
    const { code, stderr } = await runAt(ahead, ["pin", "--cache", cache, "kept", storeHash("path-20")]);
    expect({ code, stderr }).toMatchObject({ code: 0 });
    expect(stderr).toContain("the clock of this machine says ");
    expect(stderr).toContain(`, that of ${cache} ${new Date().toISOString().slice(0, 10)} `);
    expect(stderr.split("the clock of this machine says").length).toBe(2);
    const [added] = (await tagsOf(cache)).filter((tag) => tag.startsWith("seg-") && !before.has(tag));
    const parsed = parseTag(added ?? "");
    const time = parsed?.kind === "segment" ? generationTime(parsed.name) : Number.NaN;
    expect(Math.abs(time - Date.now())).toBeLessThan(HOUR / 2);
  },
);

test("a clock that is right is told nothing of", async () => {
  const cache = await filled("right");
  const { code, stderr } = await runAt(0, ["pin", "--cache", cache, "kept", storeHash("path-20")]);
  expect({ code, stderr }).toMatchObject({ code: 0, stderr: expect.not.stringContaining("clock") });
});

test("gc on a machine that is hours ahead ends what is over, and no more", async () => {
  const cache = await filled("hours");
  const { code, stderr } = await runAt(20 * HOUR, ["gc", "--cache", cache, "--retention-days", "21"]);
  expect({ code, stderr }).toMatchObject({
    code: 0,
    stderr: expect.stringContaining("ended 1 generation of 3"),
  });
  expect(stderr).toContain("gc goes by the earlier");
  expect((await deadOf(cache)).length).toBe(1);
});

test.each([2 * DAY, 400 * DAY, -2 * DAY])(
  "gc by a clock that is %p ms ahead changes nothing",
  async (ahead) => {
    const cache = await filled(`far${ahead}`);
    const before = await tagsOf(cache);
    const { code, stderr } = await runAt(ahead, ["gc", "--cache", cache]);
    expect({ code, stderr }).toMatchObject({
      code: 19,
      stderr: expect.stringContaining("nothing was ended"),
    });
    expect(await tagsOf(cache)).toEqual(before);
    const dry = await runAt(ahead, ["gc", "--cache", cache, "--dry-run"]);
    expect(dry.code).toBe(0);
    expect(dry.stderr).toContain("would end 1 generation of 3");
  },
);
