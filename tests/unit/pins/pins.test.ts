/** Pins over the real protocol: pinned, collected, unpinned, on machines that know of nothing but the tags. */
import { describe, expect, test } from "bun:test";
import { isUnpin, pinsOf } from "../../../src/cache/pin.ts";
import { type PublishRecord, sameLine } from "../../../src/cache/record.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { listPins } from "../../../src/pins/list.ts";
import { checkPinName, type PinTerms, pin } from "../../../src/pins/pin.ts";
import { unpin } from "../../../src/pins/unpin.ts";
import { foldOrWarn } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { cloneStore, MemoryStore } from "../../support/memory-store.ts";
import {
  commitEntries,
  commitNames,
  party,
  TestHost,
  type TestParty,
  testEntry,
  testPath,
  viewOf,
} from "../../support/protocol.ts";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const MAIN: Partial<PublishRecord> = {
  source: "repo#main",
  branch: "main",
  system: "x86_64-linux",
  selection: "packages",
};
const POLICY = { retentionMs: 0, keepLast: 1, keepBranches: [], dropBranches: [] };
const NAMES = ["app", "lib", "base", "other"];

/** `app` needs `lib` and that `base`, and something that only an upstream has. */
const app = () => [
  testEntry("app", { references: ["app", "lib", "upstreams"] }),
  testEntry("lib", { references: ["base"] }),
  testEntry("base"),
];

const noLink = async (path: string): Promise<string> => Promise.reject(new Error(`no link ${path}`));

function pinned(context: TestParty, name: string, what: string, terms: Partial<PinTerms> = {}, more = {}) {
  const all = { keepRevisions: 1, ...terms };
  return pin(context, name, { what, ...more }, all, { tool: "test", resolveLink: noLink });
}

/** What a machine sees that has never seen the cache before. */
async function seenAnew(store: MemoryStore, from: TestParty): Promise<string[]> {
  using reader = party(store, from.host);
  await refresh(reader, { list: true });
  return viewOf(reader, NAMES);
}

async function records(store: MemoryStore): Promise<PublishRecord[]> {
  using reader = party(store);
  await refresh(reader, { list: true });
  return reader.database.view.generations().map(({ record }) => record);
}

/** A gc on a machine of its own. */
async function collect(store: MemoryStore, from: TestParty) {
  using collector = party(store, from.host);
  return collectGarbage(collector, POLICY);
}

describe("a pin", () => {
  test("holds the closure as the cache has it, whatever becomes of where it came from", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await commitEntries(person, [...app(), testEntry("other")], { ...MAIN, roots: { app: testPath("app") } });
    person.host.time += 40 * DAY;
    const result = await pinned(person, "release", testPath("app"));
    expect(result).toMatchObject({ storePath: testPath("app"), paths: 3, elsewhere: 1 });
    await commitNames(person, ["base"], MAIN);
    person.host.time += 2 * DAY;
    await collect(store, person);
    person.host.time += 2 * DAY;
    const { freed } = await collect(store, person);
    expect(freed?.gone).toBe(1);
    store.collect();
    expect(await seenAnew(store, person)).toEqual(["app", "base", "lib"]);
    for (const name of ["app", "base", "lib"])
      expect(store.blobs.has(testEntry(name).blob.digest)).toBe(true);
    expect(store.blobs.has(testEntry("other").blob.digest)).toBe(false);
  });

  test("restates lines byte for byte, uploads no NAR, and names the keys that signed them", async () => {
    const store = new MemoryStore();
    using person = party(store);
    const key = (name: string) => `${name}:${Buffer.alloc(32).toString("base64")}`;
    const entry = testEntry("app", { sigs: [`ours-1:${Buffer.alloc(64).toString("base64")}`] });
    await commitEntries(person, [entry], { ...MAIN, keys: [key("ours-1"), key("others-1")] });
    await commitNames(person, ["other"], { ...MAIN, keys: [key("third-1")] });
    const before = store.written.length;
    await pinned(person, "a", testPath("app"));
    await refresh(person, { list: true });
    expect(person.database.view.line(entry.line.storeHash)).toEqual(entry.line);
    const [record] = (await records(store)).filter(({ source }) => source === "pin:a");
    expect(record).toMatchObject({ keys: [key("ours-1")], entries: 1, keepRevisions: 1 });
    // Two index layers: the generation's and the root's.
    expect(store.written.length - before).toBe(2);
  });

  test.each<[string, string]>([
    ["a store path", testPath("app")],
    ["a file in one", `${testPath("app")}/bin/app`],
    ["a base name", testPath("app").slice("/nix/store/".length)],
    ["a hash", testPath("app").slice("/nix/store/".length, "/nix/store/".length + 32)],
    ["a link", "./result"],
    ["an output", "packages.x86_64-linux.app"],
    ["an output with a slash", "./config#app"],
  ])("is named by %s", async (_, what) => {
    const store = new MemoryStore();
    using person = party(store);
    const roots = { "packages.x86_64-linux.app": testPath("app"), "./config#app": testPath("app") };
    await commitEntries(person, app(), { ...MAIN, roots, revision: "abc" });
    const resolveLink = async (path: string) => (path === "./result" ? testPath("app") : noLink(path));
    const result = await pin(person, "p", { what }, { keepRevisions: 1 }, { tool: "test", resolveLink });
    expect(result).toMatchObject({ storePath: testPath("app"), paths: 3 });
    await refresh(person);
    const [listed] = listPins(person.database.view, person.host.time);
    const label = Object.hasOwn(roots, what) ? what : testPath("app").slice("/nix/store/".length);
    expect(listed).toMatchObject({ name: "p", label, path: testPath("app"), paths: 3 });
  });

  test("of an output takes the newest whole publish that has it", async () => {
    const store = new MemoryStore();
    using person = party(store);
    const publish = async (name: string, more: Partial<PublishRecord> = {}) => {
      person.host.time += HOUR;
      await commitNames(person, [name], { ...MAIN, roots: { app: testPath(name) }, ...more });
    };
    await publish("app");
    await publish("lib");
    await publish("base", { partial: true });
    await publish("other", { roots: { another: testPath("other") } });
    expect(await pinned(person, "p", "app")).toMatchObject({ storePath: testPath("lib") });
  });

  test("of an output that several sources have needs to know which, unless they agree", async () => {
    const store = new MemoryStore();
    using person = party(store);
    const publish = (name: string, more: Partial<PublishRecord>) =>
      commitNames(person, [name], { ...MAIN, roots: { app: testPath(name) }, ...more });
    await publish("app", {});
    await publish("app", { source: "repo#next", branch: "next" });
    expect(await pinned(person, "agreed", "app")).toMatchObject({ storePath: testPath("app") });
    person.host.time += HOUR;
    await publish("lib", { source: "repo#next", branch: "next" });
    const ambiguous = pinned(person, "p", "app");
    await expect(ambiguous).rejects.toThrow(
      `several sources have an output "app": repo#next for x86_64-linux (${testPath("lib")}), repo#main for x86_64-linux (${testPath("app")})`,
    );
    expect(await pinned(person, "a", "app", {}, { source: "main" })).toMatchObject({
      storePath: testPath("app"),
    });
    expect(await pinned(person, "b", "app", {}, { source: "repo#next" })).toMatchObject({
      storePath: testPath("lib"),
    });
    person.host.time += HOUR;
    await publish("base", { system: "aarch64-linux" });
    await expect(pinned(person, "p", "app", {}, { source: "main" })).rejects.toThrow("aarch64-linux");
    const one = { source: "main", system: "aarch64-linux" };
    expect(await pinned(person, "c", "app", {}, one)).toMatchObject({ storePath: testPath("base") });
  });

  test.each<[string, string, RegExp]>([
    ["a path that the cache does not have", testPath("other"), /other is not in the cache/],
    ["an output that nobody published", "apple", /no publish has an output "apple"/],
    ["an output of Object's", "constructor", /no publish has an output "constructor"/],
    ["what is no store path", "odd", /got "sha256:x"/],
  ])("is not of %s", async (_, what, message) => {
    const store = new MemoryStore();
    using person = party(store);
    await commitEntries(person, app(), {
      ...MAIN,
      roots: { "packages.app": testPath("app"), odd: "sha256:x" },
    });
    await expect(pinned(person, "p", what)).rejects.toThrow(message);
    expect(store.tagsOf("seg-").length).toBe(1);
    const similar = pinned(person, "p", "App").catch((error) => error.hint);
    expect(await similar).toBe("Outputs with such a name: packages.app.");
  });

  test("is not written again within a day when it says the same, unless it is for some days", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await commitEntries(person, app(), MAIN);
    const again = async (terms: Partial<PinTerms> = {}) =>
      (await pinned(person, "p", testPath("app"), terms)).generation;
    expect(await again()).not.toBeNull();
    expect(await again()).toBeNull();
    expect(await again({ keepRevisions: 2 })).not.toBeNull();
    expect(await again({ keepRevisions: 2 })).toBeNull();
    expect(await again({ keepDays: 3 })).not.toBeNull();
    expect(await again({ keepDays: 3 })).not.toBeNull();
    expect(await again()).not.toBeNull();
    person.host.time += 25 * HOUR;
    expect(await again()).not.toBeNull();
  });

  test("is succeeded by what was pinned later, within the same second and by clocks that are behind", async () => {
    const store = new MemoryStore();
    using person = party(store);
    using other = party(store);
    await commitNames(person, NAMES, MAIN);
    for (const [context, name] of [
      [person, "app"],
      [person, "lib"],
      [other, "base"],
    ] as const) {
      other.host.time = person.host.time - 50 * 60_000;
      await pinned(context, "p", testPath(name));
    }
    await refresh(person, { list: true });
    const [listed] = listPins(person.database.view, person.host.time);
    expect(listed?.path).toBe(testPath("base"));
    expect(listed?.revisions.map(({ path }) => path)).toEqual(["base", "lib", "app"].map(testPath));
  });

  test("whose blobs are gone is not made", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await commitEntries(person, app(), MAIN);
    store.blobs.delete(testEntry("lib").blob.digest);
    await expect(pinned(person, "p", testPath("app"))).rejects.toThrow("its index names blobs that are gone");
    expect(store.tagsOf("seg-").length).toBe(1);
  });
});

test.each(["", " ", "-x", "a b", "a\n", "ä", "x".repeat(129)])("%p is no name of a pin", (name) => {
  expect(() => checkPinName(name)).toThrow("as the name of a pin");
});

describe("unpinned", () => {
  const setUp = async (store: MemoryStore, person: TestParty) => {
    await commitNames(person, ["app", "lib"], { ...MAIN, source: "paths" });
    await pinned(person, "p", testPath("app"), { keepRevisions: 2 });
    person.host.time += 2 * DAY;
    await pinned(person, "p", testPath("lib"), { keepRevisions: 2 });
    await pinned(person, "q", testPath("lib"));
    expect(store.tagsOf("seg-").length).toBe(4);
  };

  test("ends at once when it is old enough, and other pins stay", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await setUp(store, person);
    person.host.time += 2 * DAY;
    using another = party(store, person.host);
    const { ended, waiting } = await unpin(another, "p", "test");
    expect([ended.length, waiting.length]).toEqual([2, 0]);
    await refresh(another, { list: true });
    expect(listPins(another.database.view, person.host.time).map(({ name }) => name)).toEqual(["q"]);
    expect(store.tagsOf("dead-").length).toBe(2);
    expect((await records(store)).some(isUnpin)).toBe(false);
    await expect(unpin(another, "p", "test")).rejects.toThrow('there is no pin "p"');
  });

  test("while it is young, is remembered by the tags until any machine's gc has ended it", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await setUp(store, person);
    const { ended, waiting } = await unpin(person, "p", "test");
    // The young revision, and the generation that ends the pin.
    expect([ended.length, waiting.length]).toEqual([1, 2]);
    await refresh(person, { list: true });
    expect(listPins(person.database.view, person.host.time).map(({ name }) => name)).toEqual(["q"]);
    await collect(store, person);
    expect(store.tagsOf("dead-").length).toBe(2);
    person.host.time += 25 * HOUR;
    await collect(store, person);
    expect((await records(store)).map(({ source }) => source)).toEqual(["pin:q"]);
    person.host.time += 27 * HOUR;
    await collect(store, person);
    expect(store.tagsOf("seg-").length).toBe(1);
    expect(await seenAnew(store, person)).toEqual(["lib"]);
  });

  test("and pinned again lives on, and what was before does not", async () => {
    const store = new MemoryStore();
    using person = party(store);
    await setUp(store, person);
    await unpin(person, "p", "test");
    await pinned(person, "p", testPath("app"), { keepRevisions: 5 });
    person.host.time += 3 * DAY;
    await collect(store, person);
    const left = await records(store);
    expect(left.map(({ source, roots }) => [source, Object.values(roots)])).toEqual([
      ["pin:q", [testPath("lib")]],
      ["pin:p", [testPath("app")]],
    ]);
  });

  class Killed extends Error {}

  /** Runs it until the request with this number, at which it is killed. Answers whether it was. */
  async function killedAt(store: MemoryStore, at: number, run: () => Promise<unknown>): Promise<boolean> {
    let left = at;
    store.before = () => {
      if (--left <= 0) throw new Killed();
    };
    await run().catch((error) => {
      if (!(error instanceof Killed)) throw error;
    });
    store.before = () => {};
    return left <= 0;
  }

  /** A pin of two revisions, of which the older one has no end of its own: the newer one is what says so. */
  async function pinTwice(context: TestParty): Promise<void> {
    await commitNames(context, ["app", "lib"], { ...MAIN, source: "paths" });
    // In another second, so that the names of the three have an order.
    context.host.time += HOUR / 2;
    await pinned(context, "p", testPath("app"), { keepRevisions: 2 });
    context.host.time += HOUR / 2;
    await pinned(context, "p", testPath("lib"), { keepRevisions: 2, keepDays: 4 });
  }

  /** What a machine that has never seen the cache takes the pin for. */
  async function seenPin(store: MemoryStore, from: TestParty) {
    using reader = party(store, from.host);
    await refresh(reader, { list: true });
    const pin = pinsOf(reader.database.view.generations()).get("p");
    return pin?.newest && { path: pin.newest.record.roots, until: pin.until };
  }

  /** A cache with the pin `p` as `setUp` leaves it, over and over, and the time by then. */
  async function prepared(setUp: (context: TestParty) => Promise<unknown>) {
    const store = new MemoryStore();
    using person = party(store);
    await setUp(person);
    const before = await seenPin(store, person);
    return { before, again: () => ({ store: cloneStore(store), host: new TestHost(person.host.time) }) };
  }

  test.each([
    ["old", 30 * HOUR],
    ["young", HOUR],
    ["of which one is old", 23.75 * HOUR],
  ])(
    "killed at any request while its revisions are %s, is as it was or over, and over once it went through",
    async (_, age) => {
      const { before, again } = await prepared(async (context) => {
        await pinTwice(context);
        context.host.time += age;
      });
      let kills = 0;
      for (let at = 1; ; at++) {
        const { store, host } = again();
        using person = party(store, host);
        const isKilled = await killedAt(store, at, () => unpin(person, "p", "test"));
        const after = await seenPin(store, person);
        expect([undefined, before]).toContainEqual(after);
        if (!isKilled) expect(after).toBeUndefined();
        if (after !== undefined) {
          // It said that it failed, so the person does it again.
          using other = party(store, host);
          await unpin(other, "p", "test");
          kills++;
        }
        // It stays so, whoever collects.
        host.time += 2 * DAY;
        await collect(store, person);
        expect((await records(store)).filter(({ source }) => source === "pin:p")).toEqual([]);
        if (isKilled) continue;
        expect(at).toBeGreaterThan(12);
        expect(kills).toBeGreaterThan(5);
        break;
      }
    },
    60_000,
  );

  /** Ends what it does while one tombstone after the other is the request that is lost, whatever else went through. */
  async function losingEach(
    setUp: (context: TestParty) => Promise<void>,
    run: (context: TestParty) => Promise<unknown>,
  ): Promise<void> {
    const { before, again } = await prepared(setUp);
    const victims = again().store.tagsOf("seg-");
    expect(victims.length).toBeGreaterThan(2);
    for (const victim of victims) {
      const { store, host } = again();
      using person = party(store, host);
      store.before = (call, subject) => {
        if (call === "writeManifest" && subject.startsWith("dead-") && subject.endsWith(victim.slice(-16)))
          throw new Killed();
      };
      await run(person).catch((error) => {
        if (!(error instanceof Killed)) throw error;
      });
      store.before = () => {};
      expect([undefined, before]).toContainEqual(await seenPin(store, person));
    }
  }

  test.each<[string, (context: TestParty) => Promise<void>, (context: TestParty) => Promise<unknown>]>([
    [
      "of unpin",
      async (context) => {
        await pinTwice(context);
        context.host.time += 2 * DAY;
      },
      (context) => unpin(context, "p", "test"),
    ],
    [
      "of gc, once its time is over",
      async (context) => {
        await pinTwice(context);
        context.host.time += 5 * DAY;
      },
      (context) => collectGarbage(context, POLICY),
    ],
    [
      "of gc, once it was unpinned",
      async (context) => {
        await pinTwice(context);
        await unpin(context, "p", "test");
        context.host.time += 2 * DAY;
      },
      (context) => collectGarbage(context, POLICY),
    ],
  ])("is as it was or over, whichever tombstone is lost: %s", async (_, setUp, run) => {
    await losingEach(setUp, run);
  });

  test("or over by its time, is never a pin without an end, at whichever request gc is killed", async () => {
    const { before, again } = await prepared(async (context) => {
      await pinTwice(context);
      context.host.time += 5 * DAY;
    });
    for (let at = 1; ; at++) {
      const { store, host } = again();
      using collector = party(store, host);
      const isKilled = await killedAt(store, at, () => collectGarbage(collector, POLICY));
      expect([undefined, before]).toContainEqual(await seenPin(store, collector));
      await collect(store, collector);
      expect((await records(store)).filter(({ source }) => source === "pin:p")).toEqual([]);
      if (isKilled) continue;
      expect(at).toBeGreaterThan(12);
      break;
    }
  }, 60_000);
});

test("a list says since when, until when, and how large", async () => {
  const store = new MemoryStore();
  using person = party(store);
  await commitEntries(person, app(), MAIN);
  await foldOrWarn(person);
  const start = person.host.time;
  await pinned(person, "old", testPath("base"), { keepDays: 1 });
  person.host.time += 2 * DAY;
  await pinned(person, "new", testPath("lib"), { keepRevisions: 3 });
  await refresh(person, { list: true });
  const size = (...names: string[]) => names.reduce((sum, name) => sum + testEntry(name).blob.size, 0);
  const seconds = (ms: number) => new Date(Math.floor(ms / 1000) * 1000).toISOString();
  expect(listPins(person.database.view, person.host.time)).toMatchObject([
    {
      name: "new",
      path: testPath("lib"),
      since: seconds(start + 2 * DAY),
      until: null,
      over: false,
      keepRevisions: 3,
      paths: 2,
      bytes: size("lib", "base"),
    },
    {
      name: "old",
      since: seconds(start),
      until: seconds(start + DAY),
      over: true,
      revisions: [{ path: testPath("base") }],
      bytes: size("base"),
    },
  ]);
});

test("a pin is one line, whatever it is about", () => {
  const record = (source: string, name: string) =>
    ({ source, roots: { [name]: "" } }) as unknown as PublishRecord;
  expect(sameLine(record("pin:a", "x"), record("pin:a", "y"))).toBe(true);
  expect(sameLine(record("pin:a", "x"), record("pin:b", "x"))).toBe(false);
  expect([...pinsOf([]).keys()]).toEqual([]);
});
