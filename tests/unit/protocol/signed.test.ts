/**
 * Generations that are signed: a reader that was given keys takes those alone that one of them has signed, whatever a
 * stranger with the right to write puts beside, above or in the place of them.
 */
import { describe, expect, test } from "bun:test";
import {
  type BlobReference,
  indexLayerOf,
  rootManifest,
  segmentManifest,
} from "../../../src/cache/manifests.ts";
import { generationName, parseTag, ROOT_TAG, segmentTag } from "../../../src/cache/tags.ts";
import { copyCache } from "../../../src/copy/copy.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { randomId } from "../../../src/host.ts";
import { readContents } from "../../../src/inspect/contents.ts";
import { parseSignature } from "../../../src/nar/signature.ts";
import { publicKeyOf } from "../../../src/nar/signing-key.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { decodeManifest, MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { makeLayer } from "../../../src/protocol/layer-blob.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { generationMessage, isSignedBy, rootLayerMessage, signText } from "../../../src/protocol/signed.ts";
import { isHarmful } from "../../../src/verify/finding.ts";
import { verify } from "../../../src/verify/verify.ts";
import { DAY, MAIN_LINE, STRETCH_POLICY } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, type TestParty, testEntry, testRecord, viewOf } from "../../support/protocol.ts";
import { reading, signing, testKey, trusting } from "../../support/trust.ts";

const OWN = testKey("own-1");
const OTHER = testKey("other-1");
/** A stranger's key with the name of ours. */
const POSER = testKey("poser");
const NAMES = ["a", "b", "bad", "late"];
const NOTES = { created: "2026-01-01T00:00:00Z", nonce: "00" };

function manifestAt(store: MemoryStore, tag: string) {
  const stored = store.manifests.get(store.tags.get(tag) as Digest);
  return stored && decodeManifest(stored.bytes, tag);
}

function rootLayers(store: MemoryStore) {
  return manifestAt(store, ROOT_TAG)?.layers ?? [];
}

/** Past what a registry would check. */
async function put(store: MemoryStore, tag: string, bytes: Uint8Array) {
  const digest = digestOf(bytes);
  store.manifests.set(digest, { digest, mediaType: MEDIA_TYPE_MANIFEST, bytes });
  store.tags.set(tag, digest);
}

/** What a reader with an empty index sees, and how often it asked. */
async function seenBy(reader: TestParty) {
  using its = reader;
  (its.store as MemoryStore).calls.length = 0;
  await refresh(its, { list: true });
  const calls = (its.store as MemoryStore).calls.map((call) => call.split(" ")[0] ?? "");
  return {
    view: viewOf(its, NAMES),
    calls,
    unsigned: its.database.view.unsigned(),
    warnings: its.warnings,
  };
}

test("what is signed, and that it is good for nothing else", () => {
  const name = "20261123t175346z-0123456789abcdef";
  const digest: Digest = `sha256:${"ab".repeat(32)}`;
  expect(generationMessage(name, digest)).toBe(
    `nixcache-generation-v1\n20261123t175346z-0123456789abcdef\nsha256:${"ab".repeat(32)}\n`,
  );
  expect(rootLayerMessage(digest)).toBe(`nixcache-root-layer-v1\nsha256:${"ab".repeat(32)}\n`);
  const text = signText(generationMessage(name, digest), OWN);
  expect(parseSignature(text).name).toBe("own-1");
  const keys = [publicKeyOf(OWN)];
  expect(isSignedBy(text, generationMessage(name, digest), keys)).toBe(true);
  expect(isSignedBy(text, rootLayerMessage(digest), keys)).toBe(false);
  expect(isSignedBy(text, generationMessage(name.replace("0123", "1123"), digest), keys)).toBe(false);
  expect(isSignedBy(text, generationMessage(name, digest), [publicKeyOf(OTHER)])).toBe(false);
});

test.each<[string, string | undefined, boolean]>([
  ["none", undefined, false],
  ["an empty text", "", false],
  ["no signature", "own-1:short", false],
  [
    "a good one behind another key's and nonsense",
    `nonsense ${signText("m", OTHER)}  ${signText("m", OWN)}`,
    true,
  ],
  ["a name of ours and another key's bytes", `own-1:${signText("m", POSER).split(":")[1]}`, false],
  ["more than are tried", `${`${signText("m", OTHER)} `.repeat(16)}${signText("m", OWN)}`, false],
])("signatures of a layer: %s", (_, text, isGood) => {
  expect(isSignedBy(text, "m", [publicKeyOf(OWN)])).toBe(isGood);
});

/** What a stranger does to a cache that has `a` and `b`, signed and folded. */
type Attack = (store: MemoryStore, stranger: TestParty) => Promise<unknown>;

async function forgedRoot(store: MemoryStore, stranger: TestParty, signatures?: (digest: Digest) => string) {
  const { line, blob } = testEntry("bad");
  await store.writeBlob(blob);
  await refresh(stranger, { list: true });
  const covers = stranger.database.view.generations();
  const top = await makeLayer(stranger.spool, { kind: "root", covers, nonce: "0" }, [line]);
  await store.writeBlob(top);
  const forged = { digest: top.digest, size: top.size, signatures: signatures?.(top.digest) };
  return { forged, layers: rootLayers(store) };
}

function later(stranger: TestParty): string {
  return segmentTag(generationName(stranger.host.time + 60_000, randomId(stranger.host)));
}

const ATTACKS: [string, Attack][] = [
  ["a generation without a signature", (_, stranger) => commitNames(stranger, ["bad"])],
  [
    "a generation that another key has signed",
    async (store) => {
      using poser = signing(store, OTHER);
      await commitNames(poser, ["bad"]);
    },
  ],
  [
    "a signature of its own under the name of the key",
    async (store, stranger) => {
      const tag = segmentTag(await commitNames(stranger, ["bad"]));
      const index = indexLayerOf(manifestAt(store, tag) as never, tag);
      const signature = signText(generationMessage(tag.slice(4), index.digest), POSER).replace(
        /^poser/,
        "own-1",
      );
      await put(store, tag, segmentManifest({ ...index, signatures: signature }, [], NOTES));
    },
  ],
  [
    "a signed generation under a newer name",
    async (store, stranger) => {
      const old = [...store.tags.keys()].find((tag) => parseTag(tag)?.kind === "segment") as string;
      const { bytes } = store.manifests.get(store.tags.get(old) as Digest) as { bytes: Uint8Array };
      await put(store, later(stranger), bytes);
    },
  ],
  [
    "a signature of another generation",
    async (store, stranger) => {
      const old = [...store.tags.keys()].find((tag) => parseTag(tag)?.kind === "segment") as string;
      const { signatures } = indexLayerOf(manifestAt(store, old) as never, old);
      const tag = segmentTag(await commitNames(stranger, ["bad"]));
      const index = indexLayerOf(manifestAt(store, tag) as never, tag);
      await put(store, tag, segmentManifest({ ...index, signatures }, [], NOTES));
    },
  ],
  ["a manifest that is none", (store, stranger) => put(store, later(stranger), Buffer.from("nonsense"))],
  ["a manifest without layers", (store, stranger) => put(store, later(stranger), rootManifest([], NOTES))],
  [
    "a name of the far future",
    (store, stranger) => {
      stranger.host.time = Date.UTC(9999, 0, 1);
      return commitNames({ ...stranger, store }, ["bad"]);
    },
  ],
  ["an empty root", (store) => put(store, ROOT_TAG, rootManifest([], NOTES))],
  ["a root that is none", (store) => put(store, ROOT_TAG, Buffer.from("{}"))],
  [
    "a root with a layer of its own alone, which covers all",
    async (store, stranger) => {
      const { forged } = await forgedRoot(store, stranger);
      await put(store, ROOT_TAG, rootManifest([forged], NOTES));
    },
  ],
  [
    "a root with a layer of its own above ours, with another layer's signature",
    async (store, stranger) => {
      const { forged, layers } = await forgedRoot(store, stranger);
      const [below] = layers.map(({ digest, size, annotations }) => {
        return { digest, size, signatures: annotations?.["io.nixcache.signature"] };
      });
      const both = [below as BlobReference, { ...forged, signatures: below?.signatures }];
      await put(store, ROOT_TAG, rootManifest(both, NOTES));
    },
  ],
  [
    "a root with a layer that is signed as a generation",
    async (store, stranger) => {
      const old = [...store.tags.keys()].find((tag) => parseTag(tag)?.kind === "segment") as string;
      const { signatures } = indexLayerOf(manifestAt(store, old) as never, old);
      const { forged } = await forgedRoot(store, stranger, () => signatures ?? "");
      await put(store, ROOT_TAG, rootManifest([forged], NOTES));
    },
  ],
  [
    "a segment's layer in the place of a root's",
    async (store) => {
      const old = [...store.tags.keys()].find((tag) => parseTag(tag)?.kind === "segment") as string;
      await put(store, ROOT_TAG, rootManifest([indexLayerOf(manifestAt(store, old) as never, old)], NOTES));
    },
  ],
];

async function signedCache(): Promise<MemoryStore> {
  const store = new MemoryStore();
  using publisher = signing(store, OWN);
  await commitNames(publisher, ["a"], MAIN_LINE);
  publisher.host.time += 60_000;
  await commitNames(publisher, ["b"], { ...MAIN_LINE, selection: "b" });
  await fold(publisher);
  return store;
}

describe.each(ATTACKS)("a stranger writes %s", (_, attack) => {
  test("readers with the key see what they saw, new ones too", async () => {
    const store = await signedCache();
    using known = reading(store, OWN);
    await refresh(known);
    using stranger = party(store);
    await attack(store, stranger);
    await refresh(known, { list: true });
    expect(viewOf(known, NAMES)).toEqual(["a", "b"]);
    expect((await seenBy(reading(store, OWN))).view).toEqual(["a", "b"]);
  });

  test("the next publish and fold of ours mend what it cost", async () => {
    const store = await signedCache();
    using stranger = party(store);
    await attack(store, stranger);
    using publisher = signing(store, OWN);
    await commitNames(publisher, ["late"], MAIN_LINE);
    await fold(publisher);
    const { view, calls } = await seenBy(reading(store, OWN));
    expect(view).toEqual(["a", "b", "late"]);
    // The list, the root, its layers; and a manifest for each generation of the stranger's.
    expect(calls.filter((call) => call === "readBlob").length).toBeLessThanOrEqual(2);
  });

  test("gc with the key ends nothing for it", async () => {
    const store = await signedCache();
    using stranger = party(store);
    await attack(store, stranger);
    using collector = signing(store, OWN);
    collector.host.time += 90 * DAY;
    const { decisions } = await collectGarbage(collector, STRETCH_POLICY);
    const counted = decisions.filter(({ rule }) => rule !== "unsigned");
    expect(counted.map(({ ends }) => ends)).toEqual([false, false]);
    expect((await seenBy(reading(store, OWN))).view).toEqual(["a", "b"]);
  });
});

describe("signed generations", () => {
  test("a fold is signed: a new reader with the key reads the root alone", async () => {
    const store = await signedCache();
    const { calls, unsigned, warnings } = await seenBy(reading(store, OWN));
    expect(calls).toEqual(["listTags", "readManifest", "readBlob"]);
    expect([unsigned, warnings]).toEqual([[], []]);
  });

  test("whoever has no key sees everything, as ever", async () => {
    const store = await signedCache();
    using unsigned = party(store);
    await commitNames(unsigned, ["late"]);
    expect((await seenBy(party(store))).view).toEqual(["a", "b", "late"]);
  });

  test("--allow-unsigned-generations: a signer who takes everything signs no root layer", async () => {
    const store = new MemoryStore();
    using stranger = party(store);
    await commitNames(stranger, ["bad"]);
    using publisher = trusting(store, { signer: OWN });
    await commitNames(publisher, ["a"]);
    await fold(publisher);
    expect(rootLayers(store).map(({ annotations }) => annotations)).toEqual([undefined]);
    expect((await seenBy(reading(store, OWN))).view).toEqual(["a"]);
  });

  test("what is passed over is told, remembered, and not asked for again", async () => {
    const store = await signedCache();
    using stranger = party(store);
    const name = await commitNames(stranger, ["bad"]);
    using reader = reading(store, OWN);
    await refresh(reader, { list: true });
    expect(reader.database.view.unsigned()).toEqual([name]);
    expect(reader.warnings[0]).toStartWith(
      `seg-${name} is passed over, as none of the given keys has signed it; nixcache sign`,
    );
    store.calls.length = 0;
    await refresh(reader, { list: true });
    expect(store.calls.filter((call) => call.includes(name))).toEqual([]);
    await put(
      store,
      `dead-${name}`,
      (store.manifests.get(store.tags.get(segmentTag(name)) as Digest) as { bytes: Uint8Array }).bytes,
    );
    await refresh(reader, { list: true });
    expect(reader.database.view.unsigned()).toEqual([]);
  });

  test("a fold is done with when all that counts is covered, whatever else is there", async () => {
    const store = await signedCache();
    using stranger = party(store);
    await commitNames(stranger, ["bad"]);
    using publisher = signing(store, OWN);
    await commitNames(publisher, ["late"]);
    store.calls.length = 0;
    expect(await fold(publisher)).toBe(true);
    expect(store.calls.filter((call) => call === "listTags").length).toBe(2);
  });

  test("two keys: whoever gives both takes both", async () => {
    const store = await signedCache();
    using other = signing(store, OTHER, OWN);
    await commitNames(other, ["late"]);
    await fold(other);
    expect((await seenBy(reading(store, OWN, OTHER))).view).toEqual(["a", "b", "late"]);
    expect((await seenBy(reading(store, OTHER))).view).toContain("late");
  });

  test("a fold without a key leaves signed layers as they are, however large its own are", async () => {
    const store = await signedCache();
    const [signed] = rootLayers(store);
    using keyless = party(store);
    await commitNames(
      keyless,
      Array.from({ length: 500 }, (_, at) => `many-${at}`),
    );
    await fold(keyless);
    expect(rootLayers(store)[0]).toEqual(signed as never);
    expect(rootLayers(store).length).toBe(2);
    const { view, calls } = await seenBy(reading(store, OWN));
    expect(view).toEqual(["a", "b"]);
    expect(calls.filter((call) => call === "readBlob").length).toBe(1);
  });

  test("gc without a key costs readers with one time only until the next publish", async () => {
    const store = await signedCache();
    using publisher = signing(store, OWN);
    publisher.host.time += 60_000;
    await commitNames(publisher, ["late"], MAIN_LINE);
    await fold(publisher);
    using keyless = party(store);
    keyless.host.time = publisher.host.time + 30 * DAY;
    const { decisions } = await collectGarbage(keyless, STRETCH_POLICY);
    expect(decisions.filter(({ ends }) => ends).length).toBe(1);
    expect((await seenBy(reading(store, OWN))).view).toEqual(["b", "late"]);
    await refresh(publisher, { list: true });
    await fold(publisher);
    const { view, calls } = await seenBy(reading(store, OWN));
    expect(view).toEqual(["b", "late"]);
    expect(calls).toEqual(["listTags", "readManifest", "readBlob"]);
  });

  test("gc with the key ends what is not signed after the retention, where something signed succeeds it", async () => {
    const store = new MemoryStore();
    using before = party(store);
    const succeeded = await commitNames(before, ["a"], MAIN_LINE);
    const bare = await commitNames(before, ["b"]);
    const alone = await commitNames(before, ["late"], { ...MAIN_LINE, selection: "alone" });
    using publisher = signing(store, OWN);
    publisher.host.time = before.host.time + 60_000;
    await commitNames(publisher, ["a"], MAIN_LINE);
    using collector = signing(store, OWN);
    collector.host.time = before.host.time + DAY;
    const endingIn = async () => {
      const { decisions } = await collectGarbage(collector, STRETCH_POLICY, { dryRun: true });
      return decisions.filter(({ ends }) => ends).map(({ name }) => name);
    };
    expect(await endingIn()).toEqual([]);
    collector.host.time += STRETCH_POLICY.retentionMs;
    expect((await endingIn()).sort()).toEqual([succeeded, bare].sort());
    const { freed } = await collectGarbage(collector, STRETCH_POLICY);
    expect(freed?.waiting).toBe(2);
    expect((await seenBy(party(store))).view).toEqual(["a", "late"]);
    expect(store.tags.has(segmentTag(alone))).toBe(true);
  });

  test("one generation for itself: contents of one that no key has signed are refused", async () => {
    const store = await signedCache();
    using stranger = party(store);
    const name = await commitNames(stranger, ["bad"]);
    using reader = reading(store, OWN);
    expect(readContents(reader, name, () => {})).rejects.toThrow(
      `seg-${name} of memory is signed by none of the keys that were given`,
    );
    expect((await readContents({ ...reader, trust: {} }, name, () => {})).entries).toBe(1);
  });

  test("verify tells of it, and the cache is clean", async () => {
    const store = await signedCache();
    using stranger = party(store);
    const name = await commitNames(stranger, ["bad"]);
    await put(store, later(stranger), Buffer.from("nonsense"));
    using reader = reading(store, OWN);
    const { findings } = await verify({ ...reader, upstreams: [], keys: reader.trust?.keys ?? [] });
    expect(findings.map(({ kind }) => kind)).toEqual(["generation-unsigned", "generation-unsigned"]);
    expect(findings[0]?.subject).toBe(segmentTag(name));
    expect(findings.some(isHarmful)).toBe(false);
  });

  test("a copy with keys leaves it out, and a copied generation stays signed", async () => {
    const store = await signedCache();
    using stranger = party(store);
    const name = await commitNames(stranger, ["bad"]);
    const to = new MemoryStore();
    using destination = reading(to, OWN);
    const progress = { planned() {}, moved() {} };
    const report = await copyCache({ ...destination, source: store, progress });
    expect(report.unsigned).toEqual([name]);
    expect(report.copied.length).toBe(2);
    expect((await seenBy(reading(to, OWN))).view).toEqual(["a", "b"]);
    expect((await seenBy(party(to))).view).toEqual(["a", "b"]);
  });

  test("a record's own words do not make it count", async () => {
    const store = await signedCache();
    using stranger = party(store);
    const { line } = testEntry("bad");
    const record = testRecord([line], stranger.host, {
      keys: [`own-1:${publicKeyOf(OWN).bytes.toBase64()}`],
    });
    await commitNames(stranger, ["bad"], record);
    expect((await seenBy(reading(store, OWN))).view).toEqual(["a", "b"]);
  });
});
