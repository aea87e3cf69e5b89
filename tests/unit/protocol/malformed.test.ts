/**
 * Generations that a stranger has put into a cache and that are none, or say odd things: nothing of ours stops for them,
 * `verify` tells of them, and `--repair` heals the cache.
 */
import { describe, expect, test } from "bun:test";
import { type EntryLine, encodeEntry, entryOf, formatLine } from "../../../src/cache/entry.ts";
import { formatLayer } from "../../../src/cache/index-layer.ts";
import { segmentManifest } from "../../../src/cache/manifests.ts";
import type { PublishRecord } from "../../../src/cache/record.ts";
import { generationName, ROOT_TAG, segmentTag } from "../../../src/cache/tags.ts";
import { realHost } from "../../../src/context.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { randomId } from "../../../src/host.ts";
import { diffGenerations } from "../../../src/inspect/diff.ts";
import { readHistory } from "../../../src/inspect/history.ts";
import { knownGenerations } from "../../../src/inspect/known.ts";
import { withList } from "../../../src/inspect/list.ts";
import { explain } from "../../../src/inspect/why.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { openLayout } from "../../../src/oci/layout.ts";
import { MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import type { Store } from "../../../src/oci/store.ts";
import { listPins } from "../../../src/pins/list.ts";
import { writeEmptyConfig } from "../../../src/protocol/empty-config.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { publishOf } from "../../../src/serve/page/publish.ts";
import { findKeys } from "../../../src/setup/trusted-keys.ts";
import { isHarmful } from "../../../src/verify/finding.ts";
import { repair } from "../../../src/verify/repair.ts";
import { verify } from "../../../src/verify/verify.ts";
import { DAY, MAIN_LINE, STRETCH_POLICY as POLICY } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  commitNames,
  party,
  storeHash,
  type TestParty,
  testEntry,
  testRecord,
  viewOf,
} from "../../support/protocol.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const NAMES = ["a", "b", "bad", "later"];

/** Puts a manifest under a tag of a generation, past everything that checks it. */
type PutRaw = (tag: string, mediaType: string, bytes: Uint8Array) => Promise<void>;

interface Hostile {
  readonly context: TestParty;
  readonly store: Store;
  readonly put: PutRaw;
}

/** What a stranger writes. Answers the tag of the generation. */
type Attack = (hostile: Hostile) => Promise<string>;

function nextTag({ host }: TestParty): string {
  host.time += 60_000;
  return segmentTag(generationName(host.time, randomId(host)));
}

/** A generation whose index layer is these bytes. */
function withLayer(layerOf: (context: TestParty) => Uint8Array | string): Attack {
  return async ({ context, store }) => {
    const tag = nextTag(context);
    const content = Buffer.from(layerOf(context) as string);
    const layer = { digest: digestOf(content), size: content.length };
    await store.writeBlob({ ...layer, content });
    await writeEmptyConfig(store, {});
    const notes = { created: new Date(context.host.time).toISOString(), nonce: randomId(context.host) };
    await store.writeManifest(tag, MEDIA_TYPE_MANIFEST, segmentManifest(layer, [], notes));
    return tag;
  };
}

/** A generation of this text. */
const withText = (textOf: (context: TestParty) => string): Attack =>
  withLayer((context) => Bun.zstdCompressSync(textOf(context)));

function textOf(record: unknown, lines: readonly string[] = []): string {
  const header = JSON.stringify({ nixcache: 1, kind: "segment", record });
  return [header, ...lines].map((line) => `${line}\n`).join("");
}

/** A record with something else in it. */
const withRecord = (change: Record<string, unknown>): Attack =>
  withText(({ host }) => textOf({ ...testRecord([], host, MAIN_LINE), ...change }));

/** A generation of the entry `bad`, whose line is another one. Its blob is there. */
const withLine = (change: (line: string) => string, more: Partial<PublishRecord> = {}): Attack => {
  const { line, blob } = testEntry("bad");
  const attack = withText(({ host }) =>
    textOf(testRecord([line], host, { source: "stranger", ...more }), [change(formatLine(line))]),
  );
  return async (hostile) => {
    await hostile.store.writeBlob(blob);
    return attack(hostile);
  };
};

/** A manifest of any text. */
const withManifest =
  (text: string, mediaType = MEDIA_TYPE_MANIFEST): Attack =>
  async ({ context, put }) => {
    const tag = nextTag(context);
    await put(tag, mediaType, Buffer.from(text));
    return tag;
  };

const rootLayer = (context: TestParty): string =>
  [...formatLayer({ kind: "root", covers: [], nonce: randomId(context.host) }, [])]
    .map((line) => `${line}\n`)
    .join("");

/** Those that cannot be read at all. */
const UNREADABLE: [string, Attack][] = [
  ["keys that are no list", withRecord({ keys: "x" })],
  ["a key that is no text", withRecord({ keys: [7] })],
  ["roots that are no paths", withRecord({ roots: { a: 1 } })],
  ["a count that is none", withRecord({ entries: -1 })],
  ["a digest that is none", withRecord({ content: "sha256:x" })],
  ["no source", withRecord({ source: undefined })],
  ["no record", withText(() => textOf(undefined))],
  ["another JSON in the place of its header", withText(() => "[]\n")],
  ["no JSON", withText(() => "nonsense\n")],
  ["no text", withText(() => "")],
  ["half a line", withText(({ host }) => textOf(testRecord([], host)).slice(0, -1))],
  ["bytes that are no UTF-8", withLayer(() => Bun.zstdCompressSync(new Uint8Array([255, 254, 10])))],
  ["a layer of a root", withText(rootLayer)],
  ["no zstd", withLayer(() => "nonsense")],
  [
    "half a frame",
    withLayer(({ host }) => Bun.zstdCompressSync(textOf(testRecord([], host))).subarray(0, -2)),
  ],
  ["a manifest that is no JSON", withManifest("nonsense")],
  ["a manifest without layers", withManifest('{"schemaVersion":2,"layers":[]}')],
  [
    "a manifest of another kind",
    withManifest('{"schemaVersion":2,"manifests":[]}', "application/vnd.oci.image.index.v1+json"),
  ],
];

const withSigs = (sigs: readonly string[]) => {
  const entry = entryOf(testEntry("bad").line);
  return formatLine(encodeEntry({ ...entry, info: { ...entry.info, sigs: [...sigs] } }));
};

/** Those that can be read, and have something that is none of what it should be. */
const ODD: [string, Attack, kind: string | undefined][] = [
  ["keys that are none", withRecord({ keys: ["x", "", "a:b", `k:${"A".repeat(44)}`] }), "key-malformed"],
  ["a signature that is none", withLine(() => withSigs(["k-1:short", "k-2:"])), "signature-malformed"],
  [
    "a signature without a name",
    withLine(() => withSigs(["k-1:short"]).replace("k-1:short", "short")),
    "line-malformed",
  ],
  ["a line that is no JSON", withLine(() => "nonsense"), "line-malformed"],
  [
    "a line without parts",
    withLine((line) => line.replace(/"parts":\[.*\]\]/, '"parts":[]')),
    "line-malformed",
  ],
  [
    "a line of the usual shape that is none",
    withLine((line) => line.replace("NarSize: 100", "NarSize: x")),
    "line-malformed",
  ],
  [
    "a path twice",
    withText(({ host }) =>
      textOf(
        testRecord([], host),
        ["a", "a"].map((name) => formatLine(testEntry(name).line)),
      ),
    ),
    undefined,
  ],
  ["a time that is none", withRecord({ time: "never" }), undefined],
  [
    "roots that are no store paths",
    withRecord({ roots: { "": "", __proto__: "x", "a\n": "/etc/passwd" } }),
    undefined,
  ],
  [
    "texts that drive a terminal",
    withRecord({ source: "\u001b[2J", branch: "\u202e", system: "\0", run: "javascript:0" }),
    undefined,
  ],
  [
    "a pin that is none",
    withRecord({ source: "pin:", keepDays: Number.MAX_SAFE_INTEGER, keepRevisions: 1 }),
    undefined,
  ],
];

async function cacheOf(context: TestParty): Promise<void> {
  await commitNames(context, ["a", "b"], MAIN_LINE);
  await fold(context);
}

/** Everything that a cache is used for goes on, for whoever comes with an empty index. */
async function expectUsable(store: Store, host: TestParty["host"], names: readonly string[]): Promise<void> {
  using context = party(store, host);
  await refresh(context, { list: true });
  expect(viewOf(context, names)).toEqual([...names].sort());
  const { live } = await knownGenerations(context);
  await readHistory(context, live, 100);
  await explain(context, storeHash("a"), POLICY);
  listPins(context.database.view, host.time);
  findKeys(context.database.view.generations());
  for (const generation of context.database.view.generations()) publishOf(generation);
  const all = { text: "", order: "name", closures: true, holders: true } as const;
  const listed = await withList(context, all, async ({ paths }) => [...paths].map(({ name }) => name));
  expect(listed.filter((name) => names.includes(name)).sort()).toEqual([...names].sort());
  const [first, last] = [live[0], live.at(-1)];
  if (first && last) await diffGenerations(context, first.name, last.name);
  await collectGarbage(context, POLICY, { dryRun: true });
}

async function raw(store: MemoryStore): Promise<PutRaw> {
  return async (tag, mediaType, bytes) => {
    const digest = digestOf(bytes);
    store.manifests.set(digest, { digest, mediaType, bytes });
    store.tags.set(tag, digest);
  };
}

/** As anybody does who can write into the folder. */
function rawIn(folder: string, store: Store): PutRaw {
  return async (tag, mediaType, content) => {
    const blob = { digest: digestOf(content), size: content.length };
    await store.writeBlob({ ...blob, content });
    const file = `${folder}/index.json`;
    const index = await Bun.file(file).json();
    const annotations = { "org.opencontainers.image.ref.name": tag };
    index.manifests.push({ mediaType, ...blob, annotations });
    await Bun.write(file, JSON.stringify(index));
  };
}

async function check(store: Store, host: TestParty["host"]) {
  using context = party(store, host);
  const verification = await verify({ ...context, upstreams: [], keys: [] });
  return verification.findings.filter(isHarmful);
}

async function mend(store: Store, host: TestParty["host"]) {
  using context = party(store, host);
  return await repair(context, await verify({ ...context, upstreams: [], keys: [] }));
}

describe("S10: a stranger's generation with", () => {
  test.each(UNREADABLE)(
    "%s closes the cache to nobody, is found, and ended by the repair",
    async (_, attack) => {
      using folder = temporaryFolder();
      for (const where of ["registry", "folder"]) {
        const memory = new MemoryStore();
        const store = where === "folder" ? openLayout(folder.path, { host: realHost }) : memory;
        const put = where === "folder" ? rawIn(folder.path, store) : await raw(memory);
        using context = party(store);
        await cacheOf(context);
        const tag = await attack({ context, store, put });
        // A second one, so that not only one is passed over.
        await attack({ context, store, put });
        using reader = party(store, context.host);
        await refresh(reader, { list: true });
        expect(reader.warnings.filter((warning) => warning.includes(`${tag} is passed over`))).toHaveLength(
          1,
        );
        expect(reader.warnings[0]).toContain("verify --repair ends it");
        await refresh(reader, { list: true });
        expect(reader.warnings).toHaveLength(2);
        await expectUsable(store, context.host, ["a", "b"]);

        // A publish commits, and its root covers what can be read.
        using publisher = party(store, context.host);
        context.host.time += 60_000;
        await commitNames(publisher, ["a", "b", "later"], MAIN_LINE);
        expect(await fold(publisher)).toBe(true);
        await expectUsable(store, context.host, ["a", "b", "later"]);

        const findings = await check(store, context.host);
        expect(findings.map(({ kind }) => kind)).toEqual(["segment-unreadable", "segment-unreadable"]);
        expect(findings.map(({ subject }) => subject)).toContain(tag);
        expect((await mend(store, context.host)).replaced).toHaveLength(2);
        expect(await check(store, context.host)).toEqual([]);
        using after = party(store, context.host);
        await refresh(after, { list: true });
        expect([viewOf(after, NAMES), after.warnings]).toEqual([["a", "b", "later"], []]);
        context.host.time += 2 * DAY;
        await collectGarbage(after, POLICY);
        expect((await store.listTags()).filter((other) => other.includes(tag.slice(-16)))).toEqual([]);
      }
    },
  );

  test.each(ODD)("%s stops nothing, and is healed by the repair", async (_, attack, kind) => {
    const store = new MemoryStore();
    using context = party(store);
    await cacheOf(context);
    const tag = await attack({ context, store, put: await raw(store) });
    await expectUsable(store, context.host, ["a", "b"]);
    using publisher = party(store, context.host);
    context.host.time += 60_000;
    await commitNames(publisher, ["a", "b", "later"], MAIN_LINE);
    expect(await fold(publisher)).toBe(true);
    await expectUsable(store, context.host, ["a", "b", "later"]);
    // Also for whoever has the root that was made then.
    await expectUsable(store, context.host, ["a", "b", "later"]);
    const kinds = new Set((await check(store, context.host)).map((finding) => finding.kind));
    expect([...kinds]).toEqual(kind === undefined ? [] : [kind as never]);
    const { replaced, lost } = await mend(store, context.host);
    expect(replaced.map(({ name }) => segmentTag(name))).toEqual(kind === undefined ? [] : [tag]);
    expect(lost).toEqual([]);
    expect(await check(store, context.host)).toEqual([]);
    await expectUsable(store, context.host, ["a", "b", "later"]);
  });

  test("a malformed line hides no other one for the path, and a publish brings it again", async () => {
    const store = new MemoryStore();
    using context = party(store);
    await commitNames(context, ["bad"], MAIN_LINE);
    const broken = (line: string) =>
      line.replace("NarSize: 100", "NarSize: x").replace(/"added":\d+/, '"added":1999999999');
    await withLine(broken)({ context, store, put: await raw(store) });
    using reader = party(store, context.host);
    await refresh(reader, { list: true });
    expect(reader.database.view.line(storeHash("bad"))).toEqual(testEntry("bad").line as EntryLine);
    expect(await fold(reader)).toBe(true);
    await expectUsable(store, context.host, ["bad"]);
  });

  test("nothing readable beside it is no empty cache: that is an error, which says what to do", async () => {
    const store = new MemoryStore();
    using context = party(store);
    await withRecord({ keys: "x" })({ context, store, put: await raw(store) });
    using reader = party(store, context.host);
    const error = await refresh(reader, { list: true }).catch((error) => error);
    expect([error.code, error.hint]).toEqual([
      "corrupt",
      expect.stringContaining("nixcache verify --repair"),
    ]);
    expect(reader.database.view.state().refreshedAt).toBeUndefined();
    await mend(store, context.host);
    await refresh(reader, { list: true });
    expect(reader.database.view.count()).toBe(0);
  });

  test("a format of the future is passed over and never ended: a newer nixcache may have written it", async () => {
    const store = new MemoryStore();
    using context = party(store);
    await cacheOf(context);
    const tag = await withText(({ host }) =>
      textOf(testRecord([], host)).replace('"nixcache":1', '"nixcache":2'),
    )({ context, store, put: await raw(store) });
    await expectUsable(store, context.host, ["a", "b"]);
    expect(await check(store, context.host)).toMatchObject([{ kind: "segment-later", subject: tag }]);
    expect((await mend(store, context.host)).replaced).toEqual([]);
    expect(await check(store, context.host)).toMatchObject([{ kind: "segment-later", subject: tag }]);
  });
});

describe("S10: a stranger's root", () => {
  test("that covers a generation twice, or has lines that are none, is passed over and made anew", async () => {
    const store = new MemoryStore();
    using context = party(store);
    await cacheOf(context);
    const { view } = context.database;
    const covers = view.generations();
    const usual = formatLine(testEntry("a").line).replace("NarSize: 100", "NarSize: x");
    const own = [...formatLayer({ kind: "root", covers, nonce: "n" }, [testEntry("b").line])];
    const twice = [...formatLayer({ kind: "root", covers: [...covers, ...covers], nonce: "n" }, [])];
    for (const lines of [twice, [...own, usual], [...own, "nonsense"]]) {
      const content = Bun.zstdCompressSync(lines.map((line) => `${line}\n`).join(""));
      const layer = { digest: digestOf(content), size: content.length };
      await store.writeBlob({ ...layer, content });
      const root = store.manifests.get(store.tags.get(ROOT_TAG) as never);
      const text = new TextDecoder().decode(root?.bytes);
      const before = JSON.parse(text).layers[0];
      const bytes = Buffer.from(
        text
          .replaceAll(before.digest, layer.digest)
          .replaceAll(`"size":${before.size}`, `"size":${layer.size}`),
      );
      await store.writeManifest(ROOT_TAG, MEDIA_TYPE_MANIFEST, bytes);
      // What is found to be malformed at once hides nothing.
      if (lines.at(-1) !== usual) await expectUsable(store, context.host, ["a", "b"]);
      using publisher = party(store, context.host);
      context.host.time += 60_000;
      await commitNames(publisher, ["a", "b"], MAIN_LINE);
      expect(await fold(publisher)).toBe(true);
      await expectUsable(store, context.host, ["a", "b"]);
    }
  });
});
