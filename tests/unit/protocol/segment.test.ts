import { expect, test } from "bun:test";
import { segmentManifest } from "../../../src/cache/manifests.ts";
import { MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import { endGenerations } from "../../../src/protocol/end.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { readSegment } from "../../../src/protocol/segment.ts";
import { DAY } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, type TestParty, testEntry } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

async function read(context: TestParty, name: string) {
  const files: string[] = [];
  const header = await readSegment(context, name, ({ file }) => void files.push(file));
  return header && { ...header, files };
}

const files = (...names: string[]) => names.map((name) => testEntry(name).line.file);

test("its own lines and record, after a fold too, and after its end", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const one = await commitNames(context, ["a", "b"], { source: "one" });
  await commitNames(context, ["b", "c"], { source: "other" });
  await fold(context);
  const found = await read(context, one);
  expect(found).toMatchObject({ record: { source: "one" }, index: { digest: indexLayer(store, one) } });
  expect(found?.files).toEqual(files("a", "b"));
  context.host.time += 2 * DAY;
  await endGenerations(context, [one]);
  expect((await read(context, one))?.files).toEqual(files("a", "b"));
});

test("none for one that is deleted", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const name = await commitNames(context, ["a"]);
  await store.deleteManifest(store.tags.get(`seg-${name}`) as never);
  expect(await read(context, name)).toBeUndefined();
});

test.each<[string, (store: MemoryStore, name: string) => Promise<void>, RegExp]>([
  [
    "an index layer that is gone",
    async (store, name) => void store.blobs.delete(indexLayer(store, name)),
    /^seg-.* of memory: its index layer sha256:\w+ is absent$/,
  ],
  [
    "an index layer with other bytes",
    async (store, name) => {
      const digest = indexLayer(store, name);
      store.blobs.set(digest, new Uint8Array(store.blobs.get(digest)?.length ?? 0));
    },
    /is not \d+ bytes with that digest$/,
  ],
  [
    "a root's layer in its place",
    async (store, name) => {
      const root = indexLayer(store, "root");
      const size = store.blobs.get(root)?.length ?? 0;
      const bytes = segmentManifest({ digest: root, size }, [], { created: "", nonce: "x" });
      await store.writeManifest(`seg-${name}`, MEDIA_TYPE_MANIFEST, bytes);
    },
    /its first layer is a root's$/,
  ],
])("%s is damage", async (_, damage, message) => {
  const store = new MemoryStore();
  using context = party(store);
  const name = await commitNames(context, ["a"]);
  await fold(context);
  store.tags.set("seg-root", store.tags.get("nixcache-index") as never);
  await damage(store, name);
  await expect(read(context, name)).rejects.toMatchObject({
    code: "corrupt",
    message: expect.stringMatching(message),
  });
});
