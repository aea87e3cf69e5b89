import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Generation } from "../../../src/cache/index-layer.ts";
import { lineOf, type PublishRecord } from "../../../src/cache/record.ts";
import { generationId, generationName } from "../../../src/cache/tags.ts";
import { Holdings } from "../../../src/gc/holdings.ts";
import { type Policy, planGc, unmatchedBranches } from "../../../src/gc/plan.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { propertyParameters } from "../../support/seed.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 5, 1, 12);
const POLICY: Policy = { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] };
const CONTENT = digestOf("content");

let serial = 0;

/** A generation of `main`, unless it says otherwise. @param days its age */
function generation(days: number, record: Partial<PublishRecord> = {}): Generation {
  const id = (++serial).toString(16).padStart(16, "0");
  return {
    name: generationName(NOW - days * DAY, id),
    record: {
      time: "",
      tool: "test",
      source: "repo main",
      branch: "main",
      system: "x86_64-linux",
      selection: "packages",
      roots: {},
      keys: [],
      content: CONTENT,
      entries: 1,
      ...record,
    },
  };
}

const onBranch = (branch: string): Partial<PublishRecord> => ({ source: `repo ${branch}`, branch });

/** The rules, and an exclamation mark behind those that end something, in the order of `generations`. */
function rules(
  generations: readonly Generation[],
  policy: Partial<Policy> = {},
  holdings?: Holdings,
): string[] {
  const { decisions } = planGc(generations, { ...POLICY, ...policy }, NOW, holdings);
  const byName = new Map(decisions.map(({ name, rule, ends }) => [name, `${rule}${ends ? "!" : ""}`]));
  return generations.map(({ name }) => byName.get(name) ?? "missing");
}

/** Each holds a blob of its own, and shares two with others. */
function held(some: readonly Generation[]): Holdings {
  const holdings = new Holdings();
  some.forEach(({ name }, i) => {
    const blobs = [i, i >> 1, i >> 2].map((n) => ({ digest: digestOf(`blob ${n}`), size: 10 }));
    holdings.add(generationId(name), blobs);
  });
  return holdings;
}

describe("what lives", () => {
  test.each<[string, Generation[], Partial<Policy>, string[]]>([
    ["nothing in an empty cache", [], {}, []],
    [
      "the newest of a line for ever, others for the retention",
      [generation(400), generation(31), generation(29), generation(300, onBranch("old"))],
      {},
      ["age!", "age!", "newest", "newest"],
    ],
    ["the only one, however old", [generation(4000)], { retentionMs: 0 }, ["newest"]],
    [
      "one of each system and selection",
      [
        generation(50),
        generation(60, { system: "aarch64-linux" }),
        generation(70, { selection: "checks" }),
        generation(80),
      ],
      {},
      ["newest", "newest", "newest", "age!"],
    ],
    [
      "the last three",
      [generation(40), generation(50), generation(60), generation(70)],
      { keepLast: 3 },
      ["newest", "last", "last", "age!"],
    ],
    [
      "pins, all of them",
      [generation(900, { source: "pin:a" }), generation(800, { source: "pin:a" })],
      {},
      ["pin", "pin"],
    ],
    [
      "bare paths for the retention, the newest too",
      [generation(40, { source: "paths", branch: undefined as never }), generation(20, { source: "paths" })],
      {},
      ["age!", "retention"],
    ],
    [
      "what is younger than a day, whatever the flags",
      [generation(0.9, onBranch("pr/1")), generation(0.99, { source: "paths" }), generation(-1)],
      { retentionMs: 0, dropBranches: ["**"], maxBytes: 0 },
      ["young", "young", "young"],
    ],
    [
      "a part of a run until the whole is there",
      [
        generation(5, { partial: true }),
        generation(4),
        generation(3, { partial: true }),
        generation(0.5, { partial: true }),
      ],
      {},
      ["partial!", "newest", "retention", "young"],
    ],
    [
      "a part does not count as the newest, nor among the last",
      [generation(50), generation(45), generation(40, { partial: true })],
      { keepLast: 2 },
      ["last", "newest", "age!"],
    ],
    [
      "the newest part of a line that has nothing else",
      [generation(50, { partial: true }), generation(40, { partial: true })],
      {},
      ["age!", "newest"],
    ],
    [
      "the newest of kept branches alone; of others what is young",
      [
        generation(40),
        generation(40, onBranch("pr/1")),
        generation(20, onBranch("pr/2")),
        generation(40, onBranch("release-1")),
        generation(40, { source: "repo", branch: undefined as never }),
      ],
      { keepBranches: ["main", "release-*"] },
      ["newest", "age!", "retention", "newest", "newest"],
    ],
    [
      "nothing of a dropped branch that is a day old",
      [
        generation(2, onBranch("dependabot/npm/x")),
        generation(0.5, onBranch("dependabot/npm/y")),
        generation(2),
      ],
      { dropBranches: ["dependabot/**"] },
      ["drop-branch!", "young", "newest"],
    ],
    [
      "a branch that is both dropped and kept",
      [generation(40), generation(40, onBranch("x"))],
      { keepBranches: ["main"], dropBranches: ["**"] },
      ["newest", "drop-branch!"],
    ],
  ])("%s", (_, generations, policy, expected) => {
    expect(rules(generations, policy, new Holdings())).toEqual(expected);
  });

  test("says why", () => {
    const newest = generation(1);
    const { decisions } = planGc([generation(40), newest], POLICY, NOW);
    expect(decisions.map(({ reason }) => reason)).toEqual([
      `older than 30 days, and seg-${newest.name} succeeded it`,
      "the newest of its source, system and outputs",
    ]);
  });
});

describe("pins", () => {
  const UNPIN = { source: "pin:a", roots: {}, entries: 0 };
  /** A revision of the pin `a`, of the path that is named. */
  const revision = (days: number, path: string, terms: Partial<PublishRecord> = { keepRevisions: 1 }) =>
    generation(days, { source: "pin:a", selection: undefined as never, roots: { [path]: path }, ...terms });

  test.each<[string, Generation[], Partial<Policy>, string[]]>([
    [
      "live for ever, whatever the policy",
      [revision(4000, "x")],
      { dropBranches: ["**"], maxBytes: 0 },
      ["pin"],
    ],
    [
      "keep their newest revision",
      [revision(50, "x"), revision(40, "y"), revision(2, "z")],
      {},
      ["pin-revision!", "pin-revision!", "pin"],
    ],
    [
      "keep as many revisions as the newest says",
      [
        revision(60, "w", { keepRevisions: 9 }),
        revision(50, "x", { keepRevisions: 1 }),
        revision(40, "y"),
        revision(2, "z", { keepRevisions: 3 }),
      ],
      {},
      ["pin-revision!", "pin", "pin", "pin"],
    ],
    [
      "keep all of them where nothing says how many",
      [revision(50, "x", {}), revision(45, "x", {}), revision(40, "y"), revision(2, "z", {})],
      {},
      ["pin", "pin", "pin", "pin"],
    ],
    [
      "count the same pinned again once",
      [
        revision(70, "v", { keepRevisions: 2 }),
        revision(60, "x"),
        revision(50, "x"),
        revision(40, "y"),
        revision(2, "y", { keepRevisions: 2 }),
      ],
      {},
      ["pin-revision!", "pin-revision!", "pin", "pin-revision!", "pin"],
    ],
    [
      "keep for its age what is younger than a day",
      [revision(0.9, "x"), revision(0.8, "y"), revision(0.1, "z")],
      {},
      ["young", "young", "young"],
    ],
    [
      "end with their days, counted from the newest revision",
      [revision(50, "x", { keepRevisions: 9 }), revision(7.01, "y", { keepRevisions: 9, keepDays: 7 })],
      {},
      ["pin-days!", "pin-days!"],
    ],
    [
      "live until their days are over",
      [revision(50, "x", { keepDays: 1 }), revision(6.99, "y", { keepRevisions: 9, keepDays: 7 })],
      {},
      ["pin", "pin"],
    ],
    [
      "end when they were unpinned, with what said so",
      [revision(50, "x"), revision(3, "y"), generation(2, UNPIN)],
      {},
      ["unpinned!", "unpinned!", "unpinned!"],
    ],
    [
      "end as far as they are old enough, and what said so stays until then",
      [revision(50, "x"), revision(0.9, "y"), generation(0.8, UNPIN)],
      {},
      ["unpinned!", "young", "young"],
    ],
    [
      "begin anew when they are pinned again",
      [revision(50, "x"), generation(40, UNPIN), revision(30, "x"), generation(20, UNPIN), revision(10, "x")],
      { maxBytes: 0 },
      ["unpinned!", "unpinned!", "unpinned!", "unpinned!", "pin"],
    ],
    [
      "are each for themselves",
      [
        revision(50, "x"),
        generation(40, { ...UNPIN, source: "pin:b" }),
        revision(60, "y", { source: "pin:b" }),
      ],
      {},
      ["pin", "unpinned!", "unpinned!"],
    ],
    [
      "of an absurd length have an end all the same",
      [revision(50, "x", { keepDays: Number.MAX_SAFE_INTEGER, keepRevisions: 1 })],
      {},
      ["pin"],
    ],
  ])("%s", (_, generations, policy, expected) => {
    expect(rules(generations, policy, new Holdings())).toEqual(expected);
  });

  test("end last by the one that says that the others are over", () => {
    const lasts = (generations: readonly Generation[]) =>
      planGc(generations, POLICY, NOW).decisions.map(({ last }) => last === true);
    const terms = { keepDays: 2, keepRevisions: 9 };
    expect(lasts([revision(50, "x"), revision(40, "y", terms)])).toEqual([false, true]);
    expect(lasts([revision(50, "x"), generation(45, UNPIN), generation(40, UNPIN)])).toEqual([
      false,
      false,
      true,
    ]);
    expect(lasts([generation(50, UNPIN), revision(40, "y")])).toEqual([true, false]);
    expect(lasts([generation(40), generation(40)])).toEqual([false, false]);
  });

  test("say why", () => {
    const reasons = (generations: readonly Generation[]) =>
      planGc(generations, POLICY, NOW).decisions.map(({ reason }) => reason);
    const unpin = generation(2, UNPIN);
    expect(reasons([revision(9, "x"), unpin])).toEqual([
      `seg-${unpin.name} ended the pin a`,
      "all that it had to say is that the pin a is over",
    ]);
    expect(reasons([revision(7, "x"), revision(3, "y", { keepDays: 2, keepRevisions: 2 })])).toEqual([
      "the pin a was for 2 days, until 2026-05-31T12:00:00.000Z",
      "the pin a was for 2 days, until 2026-05-31T12:00:00.000Z",
    ]);
    const same = revision(2, "y", { keepDays: 4, keepRevisions: 2 });
    expect(reasons([revision(7, "w"), revision(6, "x"), revision(3, "y"), same])).toEqual([
      "the pin a keeps its last 2 revisions",
      "held by the pin a, one of its last 2 revisions",
      `seg-${same.name} is of the pin a too, and holds the same`,
      "held by the pin a until 2026-06-03T12:00:00.000Z",
    ]);
  });
});

describe("--max-size", () => {
  /** Each holds 10 bytes of its own, and 100 that it shares with all. */
  const holding = (generations: readonly Generation[]): Holdings => {
    const holdings = new Holdings();
    for (const { name } of generations) {
      holdings.add(generationId(name), [
        { digest: digestOf(name), size: 10 },
        { digest: digestOf("shared"), size: 100 },
      ]);
    }
    return holdings;
  };
  const line = () => [generation(20), generation(15), generation(10), generation(5)];

  test.each<[number, string[], number]>([
    [140, ["retention", "retention", "retention", "newest"], 0],
    [139, ["max-size!", "retention", "retention", "newest"], 0],
    [120, ["max-size!", "max-size!", "retention", "newest"], 0],
    [110, ["max-size!", "max-size!", "max-size!", "newest"], 0],
    [60, ["max-size!", "max-size!", "max-size!", "newest"], 50],
  ])("%p bytes: ends the oldest until it fits, shared bytes counted once", (maxBytes, expected, excess) => {
    const generations = line();
    const holdings = holding(generations);
    expect(rules(generations, { maxBytes }, holdings)).toEqual(expected);
    expect(planGc(generations, { ...POLICY, maxBytes }, NOW, holdings).excessBytes).toBe(excess);
  });

  test("never the newest of a kept branch, a pin, or what is young", () => {
    const generations = [
      generation(90),
      generation(80, { source: "pin:x" }),
      generation(20, onBranch("pr/1")),
      generation(10, { source: "paths" }),
      generation(0.5, onBranch("pr/2")),
    ];
    const policy = { keepBranches: ["main"], maxBytes: 0 };
    expect(rules(generations, policy, holding(generations))).toEqual([
      "newest",
      "pin",
      "max-size!",
      "max-size!",
      "young",
    ]);
  });
});

describe("for any generations and policy", () => {
  const record = fc.record({
    days: fc.double({ min: -0.05, max: 100, noNaN: true }),
    branch: fc.constantFrom("main", "pr/1", "pr/2"),
    system: fc.constantFrom("x86_64-linux", "aarch64-linux"),
    source: fc.constantFrom("branch", "branch", "branch", "paths", "pin:p"),
    partial: fc.constantFrom(false, false, true),
    keepDays: fc.constantFrom(undefined, undefined, 1, 5, 40),
    keepRevisions: fc.constantFrom(undefined, 1, 2, 3),
    path: fc.constantFrom("a", "b", "c"),
    entries: fc.constantFrom(1, 1, 1, 0),
  });
  const generations = fc.array(record, { maxLength: 30 }).map((some) =>
    some.map(({ days, branch, system, source, partial, keepDays, keepRevisions, path, entries }) =>
      generation(days, {
        ...(source === "branch" ? onBranch(branch) : { source }),
        ...(source === "pin:p" && { roots: { [path]: path }, entries }),
        ...(source === "pin:p" && keepDays !== undefined && { keepDays }),
        ...(source === "pin:p" && keepRevisions !== undefined && { keepRevisions }),
        system,
        ...(partial && { partial: true as const }),
      }),
    ),
  );
  const policies = fc.record({
    retentionMs: fc.integer({ min: 0, max: 60 * 24 }).map((hours) => hours * HOUR),
    keepLast: fc.integer({ min: 1, max: 4 }),
    keepBranches: fc.constantFrom<readonly string[]>([], ["main"], ["pr/*"]),
    dropBranches: fc.constantFrom<readonly string[]>([], ["pr/1"]),
    maxBytes: fc.option(fc.integer({ min: 0, max: 300 }), { nil: undefined }),
  });
  const ended = (some: readonly Generation[], policy: Policy, holdings?: Holdings): Set<string> =>
    new Set(planGc(some, policy, NOW, holdings).decisions.flatMap(({ name, ends }) => (ends ? [name] : [])));

  test("never ends the newest of a line on a kept branch, a pin, or one younger than a day", () => {
    fc.assert(
      fc.property(generations, policies, (some, policy) => {
        const over = ended(some, policy, held(some));
        const lines = Map.groupBy(some, ({ record }) => lineOf(record));
        for (const line of lines.values()) {
          const whole = line.filter(({ record }) => !record.partial);
          const newest = (whole.length > 0 ? whole : line).toSorted((a, b) => (a.name < b.name ? 1 : -1))[0];
          const { source, branch = "" } = (newest as Generation).record;
          const isKept =
            policy.keepBranches.length === 0
              ? !policy.dropBranches.includes(branch)
              : policy.keepBranches.some((pattern) => new Bun.Glob(pattern).match(branch));
          if (source !== "paths" && source !== "pin:p" && isKept)
            expect(over).not.toContain((newest as Generation).name);
        }
        for (const { name } of some) {
          const isYoung = name > generationName(NOW - DAY, "f".repeat(16));
          if (isYoung) expect(over).not.toContain(name);
        }
        const [newest] = some
          .filter(({ record }) => record.source === "pin:p")
          .toSorted((a, b) => (a.name < b.name ? 1 : -1));
        if (newest === undefined || newest.record.entries === 0) return;
        const { keepDays = 1000 } = newest.record;
        if (newest.name > generationName(NOW - keepDays * DAY, "f".repeat(16)))
          expect(over).not.toContain(newest.name);
      }),
      propertyParameters(),
    );
  });

  test("a longer retention, and more of each line, end no more", () => {
    fc.assert(
      fc.property(generations, policies, fc.integer({ min: 0, max: 60 * 24 }), (some, policy, more) => {
        const bounded = { ...policy, maxBytes: undefined };
        const over = ended(some, bounded);
        const longer = ended(some, { ...bounded, retentionMs: policy.retentionMs + more * HOUR });
        const larger = ended(some, { ...bounded, keepLast: policy.keepLast + 1 });
        expect(longer.isSubsetOf(over)).toBe(true);
        expect(larger.isSubsetOf(over)).toBe(true);
      }),
      propertyParameters(),
    );
  });

  test("the order in which generations are listed changes nothing, and what ended stays over", () => {
    fc.assert(
      fc.property(generations, policies, (some, policy) => {
        const holdings = held(some);
        const over = ended(some, policy, holdings);
        expect(ended(some.toReversed(), policy, holdings)).toEqual(over);
        // A second run at once ends nothing more.
        const left = some.filter(({ name }) => !over.has(name));
        expect(ended(left, policy, holdings)).toEqual(new Set());
      }),
      propertyParameters(),
    );
  });

  test("fits, or says by how much it does not", () => {
    fc.assert(
      fc.property(generations, policies, (some, policy) => {
        const holdings = held(some);
        const { decisions, excessBytes } = planGc(some, policy, NOW, holdings);
        const alive = decisions.flatMap(({ name, ends }) => (ends ? [] : [generationId(name)]));
        const most = policy.maxBytes ?? Number.POSITIVE_INFINITY;
        expect(holdings.bytes(alive)).toBeLessThanOrEqual(most + excessBytes);
      }),
      propertyParameters(),
    );
  });
});

test.each<[string, (string | undefined)[], string[], string[], boolean]>([
  ["all are there", ["main", "release/1"], ["main", "release/*"], [], false],
  ["one is not", ["main"], ["main", "release/*"], ["release/*"], false],
  ["none is", ["main", undefined], ["mian"], ["mian"], true],
  ["nothing is of a branch", [undefined], ["main"], ["main"], false],
  ["none shall be kept alone", ["main"], [], [], false],
])("branches to keep: %s", (_, branches, keepBranches, patterns, isAll) => {
  const generations = branches.map((branch) => generation(1, { branch: branch as never }));
  expect(unmatchedBranches(generations, { ...POLICY, keepBranches })).toEqual({ patterns, isAll });
});

describe("generations that are named ahead of now, by a wrong clock", () => {
  test.each<[string, Generation[], Partial<Policy>, string[]]>([
    [
      "the newest of the others lives as well",
      [generation(-400), generation(40), generation(50)],
      {},
      ["young", "newest", "age!"],
    ],
    [
      "an hour ahead is no wrong clock",
      [generation(-1 / 24), generation(40), generation(50)],
      {},
      ["young", "age!", "age!"],
    ],
    [
      "the last two of the others live as well",
      [generation(-400), generation(-300), generation(40), generation(50), generation(60)],
      { keepLast: 2 },
      ["young", "young", "newest", "last", "age!"],
    ],
    [
      "revisions of a pin end for none of them",
      [
        generation(-400, { source: "pin:a", keepRevisions: 1, roots: { a: "1" } }),
        generation(40, { source: "pin:a", keepRevisions: 1, roots: { a: "2" } }),
        generation(50, { source: "pin:a", keepRevisions: 1, roots: { a: "3" } }),
      ],
      {},
      ["young", "pin", "pin-revision!"],
    ],
    [
      "a pin that is unpinned in the future is a pin until then",
      [generation(-400, { source: "pin:a", entries: 0 }), generation(40, { source: "pin:a" })],
      {},
      ["young", "pin"],
    ],
    [
      "a pin whose time is over lives when a revision from the future says so",
      [generation(-400, { source: "pin:a" }), generation(40, { source: "pin:a", keepDays: 5 })],
      {},
      ["young", "pin"],
    ],
    [
      "parts of a run do not end for a whole one of the future alone",
      [generation(-400), generation(20, { partial: true })],
      {},
      ["young", "newest"],
    ],
    [
      "what was adopted is not succeeded by one of the future alone",
      [generation(-400), generation(40, { source: "nixcache-oci", selection: "cache-index" })],
      {},
      ["young", "newest"],
    ],
  ])("%s", (_, generations, policy, expected) => {
    expect(rules(generations, policy)).toEqual(expected);
  });

  test("the newest of the others outlives --max-size", () => {
    const some = [generation(-400), generation(40), generation(50)];
    const holdings = held(some);
    expect(rules(some, { maxBytes: 1 }, holdings)).toEqual(["young", "newest", "age!"]);
  });
});
