/** Signing what was published before generations were signed, by `nixcache sign` and by the first signed publish. */
import { expect, test } from "bun:test";
import { publicKeyOf } from "../../../src/nar/signing-key.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { signGenerations } from "../../../src/protocol/sign.ts";
import { Compressor } from "../../../src/publish/nar-file.ts";
import { publish } from "../../../src/publish/publish.ts";
import { silentProgress } from "../../../src/terminal/progress.ts";
import { MAIN_LINE } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitPaths, party, viewOf } from "../../support/protocol.ts";
import { testClosure } from "../../support/publish.ts";
import { reading, signing, testKey } from "../../support/trust.ts";

const OWN = testKey("own-1");
const NAMES = ["a", "b", "c", "old", "pinned"];
const signed = { keys: [OWN] };

async function seen(store: MemoryStore): Promise<string[]> {
  using reader = reading(store, OWN);
  await refresh(reader);
  return viewOf(reader, NAMES);
}

/** Two generations of one line, bare paths, a pin, and one with a path that the key has not signed. */
async function before(store: MemoryStore) {
  using publisher = party(store);
  const next = async (paths: Parameters<typeof commitPaths>[1], more: Parameters<typeof commitPaths>[2]) => {
    publisher.host.time += 60_000;
    return commitPaths(publisher, paths, more);
  };
  const succeeded = await next({ old: signed }, MAIN_LINE);
  const main = await next({ a: signed }, MAIN_LINE);
  const bare = await next({ b: signed }, { source: "paths" });
  const pin = await next({ pinned: signed }, { source: "pin:p" });
  const unsigned = await next({ c: {}, a: signed }, { ...MAIN_LINE, selection: "c" });
  await fold(publisher);
  return { succeeded, main, bare, pin, unsigned };
}

test("of each line the newest is signed, of bare paths and pins all, where the key has signed every path", async () => {
  const store = new MemoryStore();
  const { main, bare, pin, unsigned } = await before(store);
  expect(await seen(store)).toEqual([]);
  using signer = signing(store, OWN);
  signer.host.time += 3_600_000;
  const report = await signGenerations(signer, OWN);
  expect(report.signed.map(({ name }) => name)).toEqual([main, bare, pin]);
  expect(report.signed.every(({ name, by }) => by > name)).toBe(true);
  expect(report.left).toEqual([
    { name: unsigned, reason: "1 of its 2 paths are not signed by the key: publish them again" },
  ]);
  expect([report.already, report.succeeded]).toEqual([0, 1]);
  expect(await seen(store)).toEqual(["a", "b", "pinned"]);
  using reader = reading(store, OWN);
  store.calls.length = 0;
  await refresh(reader);
  expect(store.calls.filter((call) => call.startsWith("readBlob")).length).toBe(1);
});

test("a second time there is nothing to sign", async () => {
  const store = new MemoryStore();
  await before(store);
  using signer = signing(store, OWN);
  await signGenerations(signer, OWN);
  const tags = store.tags.size;
  const again = await signGenerations(signer, OWN);
  expect([again.signed, again.already]).toEqual([[], 3]);
  expect(store.tags.size).toBe(tags);
});

test("what cannot be read is left, and everything else is signed", async () => {
  const store = new MemoryStore();
  const { main, bare } = await before(store);
  const tag = `seg-${bare}`;
  const bytes = Buffer.from('{"schemaVersion":2}');
  const digest = "sha256:00" as never;
  store.manifests.set(digest, { digest, mediaType: "x", bytes });
  store.tags.set(tag, digest);
  using signer = signing(store, OWN);
  const { signed: done, left } = await signGenerations(signer, OWN);
  expect(done.map(({ name }) => name)).toContain(main);
  expect(left.map(({ name }) => name)).toContain(bare);
});

async function publishSigned(store: MemoryStore, names: readonly string[], infos: string[] = []) {
  using machine = signing(store, OWN);
  machine.host.time += 7_200_000;
  const { closure, dump } = testClosure(names.map((name) => ({ name })));
  return await publish(
    closure,
    { tool: "test", source: "paths", roots: {} },
    {
      ...machine,
      info: (message) => infos.push(message),
      upstreams: [],
      dump,
      key: OWN,
      compressor: new Compressor(3, 2),
      partBytes: 1 << 30,
      unitsAtOnce: 4,
      progress: silentProgress(),
    },
  );
}

test("the first signed publish signs what is ours; later ones sign nothing of anybody's", async () => {
  const store = new MemoryStore();
  await before(store);
  const infos: string[] = [];
  await publishSigned(store, ["new"], infos);
  expect(infos).toContain("signed 3 generations whose paths own-1 has signed before");
  expect(await seen(store)).toEqual(["a", "b", "pinned"]);
  using stranger = party(store);
  await commitPaths(stranger, { old: signed }, MAIN_LINE);
  const tags = store.tags.size;
  await publishSigned(store, ["newer"]);
  expect(store.tags.size).toBe(tags + 1);
  expect(await seen(store)).toEqual(["a", "b", "pinned"]);
});

test("a signed publish restates nothing that only a stranger's generation says", async () => {
  const store = new MemoryStore();
  await publishSigned(store, ["x"]);
  using stranger = party(store);
  await commitPaths(stranger, { y: { content: "junk" } });
  const { paths } = await publishSigned(store, ["x", "y"]);
  expect(paths).toMatchObject({ restated: 1, uploaded: 1 });
  using other = signing(store, testKey("other-1"), OWN);
  await refresh(other);
  expect(other.trust?.keys).toContainEqual(publicKeyOf(OWN));
});
