/** gc with the current outputs of a flake as the newest generation: `--roots-from` without the evaluation. */
import { describe, expect, test } from "bun:test";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { collectGarbage, type GcReport } from "../../../src/gc/gc.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { currentLines } from "../../../src/terminal/gc-report.ts";
import { DAY, HOUR, MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitEntries, party, type TestParty, testEntry, testPath, viewOf } from "../../support/protocol.ts";

/** Nothing is kept for its age: only what is newest, or younger than a day, stays. */
const POLICY = { retentionMs: 0, keepLast: 1, keepBranches: [], dropBranches: [] };
const NAMES = ["app", "app2", "lib", "tool"];
const [origin, repository] = [{ tool: "test", ...MAIN_LINE } as never, "https://example.org/repo"];

/** An output of each name leads to a path of the same or another name. */
const outputs = (...named: (string | [string, string])[]) =>
  named.map((one) =>
    typeof one === "string" ? ([one, testPath(one)] as const) : ([one[0], testPath(one[1])] as const),
  );

const current = (...named: (string | [string, string])[]) => ({
  outputs: outputs(...named),
  origin,
  repository,
});

async function publish(person: TestParty, names: readonly string[], more: Partial<PublishRecord> = {}) {
  const entries = names.map((name) => testEntry(name, { references: name.startsWith("app") ? ["lib"] : [] }));
  const roots = Object.fromEntries(
    names.filter((name) => name !== "lib").map((name) => [name, testPath(name)]),
  );
  return commitEntries(person, entries, { ...MAIN_LINE, roots, ...more });
}

async function seen(store: MemoryStore, from: TestParty): Promise<string[]> {
  using reader = party(store, from.host);
  await refresh(reader, { list: true });
  return viewOf(reader, NAMES);
}

const verdicts = ({ decisions }: GcReport) => decisions.map(({ rule, ends }) => `${rule}${ends ? "!" : ""}`);

describe("current outputs", () => {
  test("that an older generation has become the newest, and what they do not lead to ends", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib", "tool"]);
    person.host.time += 2 * DAY;
    await publish(person, ["app2", "lib"]);
    person.host.time += 2 * DAY;
    const report = await collectGarbage(person, POLICY, { current: current("app") });
    expect(verdicts(report)).toEqual(["age!", "age!", "young"]);
    expect(report.current).toMatchObject({ unchanged: false, count: 1, lacking: [] });
    expect(report.decisions[2]?.name).toBe(report.current?.generation as string);
    expect(report.decisions[2]?.record).toMatchObject({
      ...MAIN_LINE,
      roots: { app: testPath("app") },
      entries: 2,
    });
    expect(report.decisions[2]?.record.partial).toBeUndefined();
    expect(await seen(store, person)).toEqual(["app", "lib"]);
    const stored = store.manifests.get(store.tags.get(`seg-${report.current?.generation}`) as never);
    expect(JSON.parse(new TextDecoder().decode(stored?.bytes)).annotations).toMatchObject({
      "org.opencontainers.image.source": repository,
    });
  });

  test("take part in a dry run, which writes nothing", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib", "tool"]);
    person.host.time += 2 * DAY;
    const before = store.calls.filter((call) => call.startsWith("write")).length;
    const options = { current: current("app"), dryRun: true };
    const dry = await collectGarbage(person, POLICY, options);
    expect(store.calls.filter((call) => call.startsWith("write")).length).toBe(before);
    expect(verdicts(dry)).toEqual(["age!", "young"]);
    expect(dry.sizes.after).toBe(testEntry("app").blob.size + testEntry("lib").blob.size);
    const real = await collectGarbage(person, POLICY, { current: current("app") });
    expect(verdicts(real)).toEqual(verdicts(dry));
    expect(currentLines(dry, true)[0]).toStartWith("would record the current outputs as ");
  });

  test("of which the cache lacks some end nothing that was published before", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib", "tool"]);
    person.host.time += 2 * DAY;
    const report = await collectGarbage(person, POLICY, { current: current("tool", ["app", "app3"]) });
    expect(verdicts(report)).toEqual(["newest", "young"]);
    expect(report.decisions[1]?.record).toMatchObject({ partial: true, roots: { tool: testPath("tool") } });
    expect(report.current?.lacking).toEqual([{ output: "app", path: testPath("app3") }]);
    expect(currentLines(report, false)[0]).toBe(`not in the cache: app (${testPath("app3")})`);
    expect(await seen(store, person)).toEqual(["app", "lib", "tool"]);
  });

  test("of which the cache has none make no generation", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib"]);
    person.host.time += 2 * DAY;
    const report = await collectGarbage(person, POLICY, { current: current(["app", "app3"]) });
    expect(verdicts(report)).toEqual(["newest"]);
    expect(report.current).toMatchObject({ generation: null, unchanged: false });
    expect(currentLines(report, false)[1]).toStartWith("the cache has none of the current outputs");
    expect(store.tagsOf("seg-").length).toBe(1);
  });

  test("that upstream has, as an earlier publish has found, are not lacking", async () => {
    const store = new MemoryStore();
    using person = party(store);
    const roots = { app: testPath("app"), hello: testPath("hello") };
    await publish(person, ["app", "lib"], { roots });
    person.host.time += 2 * DAY;
    const report = await collectGarbage(person, POLICY, { current: current("app", "hello") });
    expect(verdicts(report)).toEqual(["age!", "young"]);
    expect(report.current?.lacking).toEqual([]);
    expect(report.decisions[1]?.record).toMatchObject({ roots, entries: 2 });
  });

  test("are not written again while the newest says the same and is younger than a day", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib"]);
    person.host.time += 23 * HOUR;
    const same = () => collectGarbage(person, POLICY, { current: current("app") });
    expect((await same()).current).toMatchObject({ generation: null, unchanged: true });
    expect(store.tagsOf("seg-").length).toBe(1);
    const dry = await collectGarbage(person, POLICY, { current: current("app"), dryRun: true });
    expect(verdicts(dry)).toEqual(["young"]);
    person.host.time += 2 * HOUR;
    expect((await same()).current?.unchanged).toBe(false);
    expect((await same()).current?.unchanged).toBe(true);
    // A revert within the day counts.
    person.host.time += HOUR;
    await publish(person, ["app2", "lib"]);
    person.host.time += HOUR;
    expect((await same()).current?.unchanged).toBe(false);
  });

  test("count although the list does not show their generation yet", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib", "tool"]);
    person.host.time += 2 * DAY;
    store.before = (call, subject) => {
      if (call === "writeManifest" && subject.startsWith("seg-")) store.hidden.add(subject);
    };
    const report = await collectGarbage(person, POLICY, { current: current("app") });
    expect(verdicts(report)).toEqual(["age!", "young"]);
    store.hidden.clear();
    expect(await seen(store, person)).toEqual(["app", "lib"]);
  });

  test("of another selection or system leave other lines alone", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await publish(person, ["app", "lib"], { selection: "checks" });
    await publish(person, ["app", "lib"], { system: "aarch64-linux" });
    person.host.time += 2 * DAY;
    const report = await collectGarbage(person, POLICY, { current: current("app") });
    expect(verdicts(report)).toEqual(["newest", "newest", "young"]);
  });
});
