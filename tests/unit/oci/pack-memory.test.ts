/** Packs in memory: the second slice of a blob brings the whole of it, once, and nothing wrong. */
import { expect, test } from "bun:test";
import { NixcacheError } from "../../../src/errors.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { rememberPacks } from "../../../src/oci/pack-memory.ts";
import type { ByteRange, Store } from "../../../src/oci/store.ts";
import { noise } from "../../support/publish.ts";

const MIB = 1024 ** 2;

type Asked = ByteRange | "whole";

/** A store of blobs by name, which logs what it is asked for. */
function storeOf(
  sizes: Record<string, number>,
  change: (bytes: Uint8Array, asked: Asked) => Uint8Array = (b) => b,
) {
  const blobs = new Map(
    Object.entries(sizes).map(([name, size]) => {
      const bytes = noise(name, size);
      return [name, { bytes, digest: digestOf(bytes) }];
    }),
  );
  const asked: Asked[] = [];
  let gate: Promise<void> = Promise.resolve();
  const readBlob: Store["readBlob"] = async (digest, { range } = {}) => {
    asked.push(range ?? "whole");
    await gate;
    const found = [...blobs.values()].find((blob) => blob.digest === digest);
    if (found === undefined) return undefined;
    const { offset, length } = range ?? { offset: 0, length: found.bytes.length };
    const bytes = change(found.bytes.subarray(offset, offset + length), range ?? "whole");
    return new Response(bytes as Uint8Array<ArrayBuffer>).body as ReadableStream<Uint8Array>;
  };
  const read = rememberPacks(readBlob);
  return {
    asked,
    wait: (promise: Promise<void>) => {
      gate = promise;
    },
    digest: (name: string) => (blobs.get(name)?.digest ?? digestOf(name)) as Digest,
    async slice(
      name: string,
      offset: number,
      length: number,
      signal?: AbortSignal,
    ): Promise<Uint8Array | undefined> {
      const blob = blobs.get(name);
      const options = { range: { offset, length }, size: blob?.bytes.length ?? 100, isPack: true, signal };
      const stream = await read(blob?.digest ?? digestOf(name), options);
      return stream && new Uint8Array(await new Response(stream).arrayBuffer());
    },
    right: (name: string, offset: number, length: number) =>
      new Uint8Array(blobs.get(name)?.bytes.subarray(offset, offset + length) ?? []),
  };
}

test("one slice is one range; the second brings the whole, and the others nothing more", async () => {
  const store = storeOf({ pack: MIB });
  for (let at = 0; at < 50; at++) {
    expect(await store.slice("pack", at * 1000, 700)).toEqual(store.right("pack", at * 1000, 700));
  }
  expect(store.asked).toEqual([{ offset: 0, length: 700 }, "whole"]);
});

test("those who ask at the same moment share one download", async () => {
  const store = storeOf({ pack: MIB });
  const go = Promise.withResolvers<void>();
  store.wait(go.promise);
  const all = Array.from({ length: 25 }, (_, at) => store.slice("pack", at * 10, 10));
  go.resolve();
  for (const [at, slice] of all.entries()) expect(await slice).toEqual(store.right("pack", at * 10, 10));
  expect(store.asked).toEqual([{ offset: 0, length: 10 }, "whole"]);
});

test("whoever hangs up does not wait, and the others get theirs", async () => {
  const store = storeOf({ pack: MIB });
  await store.slice("pack", 0, 10);
  const go = Promise.withResolvers<void>();
  store.wait(go.promise);
  const abort = new AbortController();
  const left = store.slice("pack", 20, 10, abort.signal);
  const stays = store.slice("pack", 40, 10);
  abort.abort(new Error("gone"));
  await expect(left).rejects.toThrow();
  go.resolve();
  expect(await stays).toEqual(store.right("pack", 40, 10));
});

test("rule 5: a pack with wrong bytes is given to nobody, and asked for again", async () => {
  let wholes = 0;
  const store = storeOf({ pack: MIB }, (bytes, asked) => {
    if (asked !== "whole" || ++wholes > 1) return bytes;
    const flipped = bytes.slice();
    flipped[500_000] = (flipped[500_000] ?? 0) ^ 1;
    return flipped;
  });
  for (const at of [0, 499_990, 499_990, 499_990]) {
    expect(await store.slice("pack", at, 20)).toEqual(store.right("pack", at, 20));
  }
  const slice = { offset: 499_990, length: 20 };
  expect(store.asked).toEqual([{ offset: 0, length: 20 }, "whole", slice, "whole"]);
});

test("a blob that is absent, too short or too long is what the store says of the slice", async () => {
  const absent = storeOf({});
  expect([await absent.slice("a", 0, 5), await absent.slice("a", 5, 5)]).toEqual([undefined, undefined]);
  for (const cut of [1, -1]) {
    const store = storeOf({ pack: MIB }, (bytes, asked) =>
      asked === "whole" ? (cut > 0 ? bytes.subarray(cut) : Buffer.concat([bytes, bytes])) : bytes,
    );
    await store.slice("pack", 0, 5);
    expect(await store.slice("pack", 5, 5)).toEqual(store.right("pack", 5, 5));
    expect(store.asked.at(-1)).toEqual({ offset: 5, length: 5 });
  }
});

test("a registry that does not answer is asked once for each slice, not for the pack and for the slice", async () => {
  let isDown = false;
  const store = storeOf({ pack: MIB }, (bytes) => {
    if (isDown) throw new NixcacheError("unreachable", "nobody listens there");
    return bytes;
  });
  await store.slice("pack", 0, 700);
  isDown = true;
  store.asked.length = 0;
  for (let i = 1; i <= 3; i++) {
    await expect(store.slice("pack", 700, 700)).rejects.toThrow("nobody listens there");
    expect(store.asked).toHaveLength(i);
  }
  isDown = false;
  expect(await store.slice("pack", 700, 700)).toEqual(store.right("pack", 700, 700));
});

test("rule 6: packs take up 16 MiB at most, those that are coming included", async () => {
  const names = ["a", "b", "c", "d"];
  const store = storeOf(Object.fromEntries(names.map((name) => [name, 6 * MIB])));
  const go = Promise.withResolvers<void>();
  for (const name of names) await store.slice(name, 0, 5);
  store.wait(go.promise);
  const second = names.map((name) => store.slice(name, 5, 5));
  expect(store.asked.slice(4)).toEqual([
    "whole",
    "whole",
    { offset: 5, length: 5 },
    { offset: 5, length: 5 },
  ]);
  go.resolve();
  for (const [at, slice] of second.entries()) {
    expect(await slice).toEqual(store.right(names[at] as string, 5, 5));
  }
  // The one that was not used for longest makes room.
  await store.slice("a", 9, 5);
  await store.slice("c", 9, 5);
  store.asked.length = 0;
  await store.slice("a", 9, 5);
  expect(store.asked).toEqual([]);
  await store.slice("b", 9, 5);
  expect(store.asked).toEqual(["whole"]);
});

test("large blobs and whole ones are the store's", async () => {
  const store = storeOf({ large: 9 * MIB });
  for (const at of [0, 5, 10]) await store.slice("large", at, 5);
  expect(store.asked.length).toBe(3);
  expect(store.asked).not.toContain("whole");
});
