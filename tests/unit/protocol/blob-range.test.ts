/** Ranges of a blob over several requests at once: in order, complete, each byte asked for once, memory bounded. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NixcacheError } from "../../../src/errors.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { ByteRange } from "../../../src/oci/store.ts";
import { type BlobReader, readBlobRange } from "../../../src/protocol/blob-range.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import { noise } from "../../support/publish.ts";
import { propertyParameters } from "../../support/seed.ts";

const MIB = 1024 ** 2;
const BYTES = noise("blob", 40 * MIB);
const BLOB = { digest: digestOf(BYTES), size: BYTES.length };

/** The budget, watched. */
class WatchedBudget extends MemoryBudget {
  taken = 0;
  most = 0;

  override take(wanted: number): number {
    const got = super.take(wanted);
    this.taken += got;
    this.most = Math.max(this.most, this.taken);
    return got;
  }

  override giveBack(taken: number): void {
    super.giveBack(taken);
    this.taken -= taken;
  }
}

interface TestStore extends BlobReader {
  readonly asked: ByteRange[];
  /** Requests whose body has not ended. */
  open: number;
  mostOpen: number;
  /** Bodies that were cancelled, or whose signal fired. */
  left: number;
}

interface Behaviour {
  /** Called before each chunk; throws, or waits. */
  readonly before?: (request: number, sent: number) => Promise<void> | void;
  readonly chunk?: number;
}

function storeOf({ before = () => {}, chunk = 256 * 1024 }: Behaviour = {}): TestStore {
  const store: TestStore = {
    name: "test",
    asked: [],
    open: 0,
    mostOpen: 0,
    left: 0,
    async readBlob(_, { range = { offset: 0, length: BYTES.length }, signal } = {}) {
      const request = store.asked.push(range);
      store.mostOpen = Math.max(store.mostOpen, ++store.open);
      let sent = 0;
      let over = false;
      const end = () => {
        if (!over) store.open--;
        over = true;
      };
      return new ReadableStream<Uint8Array>(
        {
          async pull(controller) {
            try {
              await before(request, sent);
              signal?.throwIfAborted();
            } catch (error) {
              if (signal?.aborted) store.left++;
              end();
              throw error;
            }
            const at = range.offset + sent;
            const bytes = BYTES.subarray(at, Math.min(at + chunk, range.offset + range.length));
            sent += bytes.length;
            if (bytes.length > 0) controller.enqueue(bytes);
            if (sent < range.length) return;
            end();
            controller.close();
          },
          cancel() {
            store.left++;
            end();
          },
        },
        { highWaterMark: 0 },
      );
    },
  };
  return store;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return Buffer.concat(all);
}

/** Whether the ranges are those bytes, each once, in order. */
function isOnce(asked: readonly ByteRange[], { offset, length }: ByteRange): boolean {
  let at = offset;
  for (const range of asked) {
    if (range.offset !== at || range.length === 0) return false;
    at += range.length;
  }
  return at === offset + length;
}

describe("a range of a blob", () => {
  test("is right for any range, number of connections, chunks and order of events", async () => {
    const parameters = {
      ...propertyParameters(),
      numRuns: 40,
    };
    const property = fc.asyncProperty(
      fc.nat(BYTES.length - 1),
      fc.nat(20 * MIB),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 10_000, max: MIB }),
      fc.infiniteStream(fc.nat(3)),
      fc.boolean(),
      // Milliseconds between two looks at the clock: none is a connection of any speed, many are a slow one.
      fc.option(fc.infiniteStream(fc.constantFrom(0, 0, 0, 50)), { nil: undefined }),
      async (offset, most, connections, chunk, waits, slow, passing) => {
        const range = { offset, length: Math.min(most, BYTES.length - offset) };
        const before = async () => {
          for (let left = waits.next().value; left > 0; left--) await turn();
        };
        const store = storeOf({ before, chunk });
        const memory = new WatchedBudget();
        const got = createHash();
        let length = 0;
        let now = 0;
        const clock = passing && (() => (now += passing.next().value));
        for await (const bytes of readBlobRange(store, BLOB, range, { connections, memory, clock })) {
          expect(bytes.length).toBeGreaterThan(0);
          got.update(bytes);
          length += bytes.length;
          if (slow) await before();
        }
        expect(length).toBe(range.length);
        const expected = BYTES.subarray(offset, offset + range.length);
        expect(got.digest("hex")).toBe(createHash().update(expected).digest("hex"));
        expect(isOnce(store.asked, range)).toBe(true);
        expect(store.mostOpen).toBeLessThanOrEqual(connections);
        expect(memory.taken).toBe(0);
        expect(memory.most).toBeLessThanOrEqual(32 * MIB);
      },
    );
    await fc.assert(property, parameters);
  }, 60_000);

  test("has as many requests under way as there are connections, while the reader waits", async () => {
    const store = storeOf({ before: turn });
    const range = { offset: 3, length: BYTES.length - 10 };
    const got = await collect(
      readBlobRange(store, BLOB, range, { connections: 4, memory: new WatchedBudget() }),
    );
    expect(got.equals(BYTES.subarray(3, BYTES.length - 7))).toBe(true);
    expect(store.mostOpen).toBe(4);
    expect(store.asked.length).toBeLessThan(40);
  });

  test("asks a connection that is fast for more and more at once, and holds it back for a slow reader", async () => {
    const store = storeOf();
    const memory = new WatchedBudget();
    const range = { offset: 0, length: BLOB.size };
    let taken = 0;
    for await (const chunk of readBlobRange(store, BLOB, range, { connections: 4, memory, clock: () => 0 })) {
      taken += chunk.length;
      for (let i = 0; i < 10; i++) await turn();
      if (taken > 4 * MIB) expect(memory.taken).toBeLessThanOrEqual(MIB);
    }
    expect(isOnce(store.asked, range)).toBe(true);
    expect(store.asked.slice(0, 5).map(({ length }) => length / MIB)).toEqual([1, 2, 4, 8, 16]);
    expect(store.mostOpen).toBe(1);
  });

  test("asks a registry that ignores ranges once for all that is left, whatever the memory", async () => {
    for (const free of [true, false]) {
      const store = storeOf({ before: turn });
      const memory = new WatchedBudget();
      if (!free) while (memory.taken < 16 * MIB) memory.take(3 * MIB);
      const before = memory.taken;
      // It shows when the first answer comes.
      const ignoring = { ...store, ignoresRange: () => store.asked.length > 0 };
      const range = { offset: 5, length: BYTES.length - 5 };
      const got = await collect(readBlobRange(ignoring, BLOB, range, { connections: 4, memory }));
      expect(got.equals(BYTES.subarray(5))).toBe(true);
      expect(isOnce(store.asked, range)).toBe(true);
      expect(store.asked).toHaveLength(2);
      expect(memory.taken).toBe(before);
      expect(memory.most - before).toBeLessThanOrEqual(4 * MIB);
    }
  });

  test("asks over several connections again when the one has become slow", async () => {
    let [now, chunks] = [0, 0];
    const before = () => {
      if (++chunks > 40) now += 20;
      return turn();
    };
    const store = storeOf({ before });
    const range = { offset: 0, length: BLOB.size };
    const memory = new WatchedBudget();
    const got = await collect(
      readBlobRange(store, BLOB, range, { connections: 4, memory, clock: () => now }),
    );
    expect(got.equals(BYTES)).toBe(true);
    expect(isOnce(store.asked, range)).toBe(true);
    const streamed = store.asked.findIndex(({ length }) => length >= 4 * MIB);
    expect(streamed).toBeGreaterThan(0);
    expect(store.asked.slice(streamed + 3).every(({ length }) => length <= 3 * MIB)).toBe(true);
    expect(store.mostOpen).toBe(4);
  });

  test("is one request without a bound on memory", async () => {
    const store = storeOf();
    expect((await collect(readBlobRange(store, BLOB, { offset: 0, length: BLOB.size }))).equals(BYTES)).toBe(
      true,
    );
    expect(store.asked).toEqual([{ offset: 0, length: BLOB.size }]);
  });

  test("asks nothing ahead for a reader that takes nothing, and little for one that has taken little", async () => {
    const store = storeOf();
    const memory = new WatchedBudget();
    const chunks = readBlobRange(store, BLOB, { offset: 0, length: BLOB.size }, { connections: 4, memory });
    let taken = (await chunks.next()).value?.length ?? 0;
    for (let i = 0; i < 50; i++) await turn();
    expect(store.asked.length).toBe(1);
    expect(memory.taken).toBeLessThanOrEqual(MIB);
    while (taken < 3 * MIB) {
      taken += (await chunks.next()).value?.length ?? 0;
      await turn();
      expect(memory.taken).toBeLessThanOrEqual(Math.max(MIB, 2 * taken));
    }
    await chunks.return();
    expect(memory.taken).toBe(0);
  });

  test("has one window ahead for a reader that is slower than the store", async () => {
    const store = storeOf();
    const memory = new WatchedBudget();
    let taken = 0;
    let most = 0;
    for await (const chunk of readBlobRange(
      store,
      BLOB,
      { offset: 0, length: BLOB.size },
      { connections: 8, memory },
    )) {
      taken += chunk.length;
      // Everything that was asked for comes meanwhile.
      for (let i = 0; i < 40; i++) await turn();
      if (taken > 20 * MIB) most = Math.max(most, memory.taken);
    }
    expect(most).toBeLessThanOrEqual(8 * MIB);
  });

  test("has nothing ahead, but goes on, when others hold all of the memory", async () => {
    const store = storeOf({ before: turn });
    const memory = new WatchedBudget();
    while (memory.take(MIB) === MIB);
    const held = memory.taken;
    const range = { offset: 0, length: 3 * MIB };
    const got = await collect(readBlobRange(store, BLOB, range, { connections: 4, memory }));
    expect(got.equals(BYTES.subarray(0, 3 * MIB))).toBe(true);
    expect(store.mostOpen).toBe(1);
    expect(memory.taken).toBe(held);
  });

  test("fails where a request fails: all before that is right", async () => {
    const store = storeOf({
      before: async (request) => {
        await turn();
        if (request === 5) throw new NixcacheError("unreachable", "broken on purpose");
      },
    });
    const memory = new WatchedBudget();
    const got: Uint8Array[] = [];
    const read = async () => {
      for await (const chunk of readBlobRange(
        store,
        BLOB,
        { offset: 0, length: BLOB.size },
        {
          connections: 4,
          memory,
        },
      ))
        got.push(chunk);
    };
    await expect(read()).rejects.toThrow("broken on purpose");
    const before = store.asked.slice(0, 4).reduce((sum, { length }) => sum + length, 0);
    expect(Buffer.concat(got).equals(BYTES.subarray(0, before))).toBe(true);
    expect(store.asked.length).toBeLessThan(10);
    expect(memory.taken).toBe(0);
    while (store.open > 0) await turn();
  });

  test.each(["the reader leaves", "the signal fires"])("ends all requests when %s", async (how) => {
    const controller = new AbortController();
    const { signal } = controller;
    const store = storeOf({ before: turn });
    const memory = new WatchedBudget();
    const chunks = readBlobRange(
      store,
      BLOB,
      { offset: 0, length: BLOB.size },
      { connections: 4, memory, signal },
    );
    while (store.open < 4) await chunks.next();
    if (how === "the reader leaves") await chunks.return();
    else {
      controller.abort(new Error("enough"));
      await expect(collect(chunks)).rejects.toThrow();
    }
    while (store.open > 0) await turn();
    expect(store.left).toBeGreaterThan(0);
    expect(memory.taken).toBe(0);
  });

  test("ends when the signal fires after all was asked for, also over a store that ignores it", async () => {
    const controller = new AbortController();
    const go = Promise.withResolvers<void>();
    const store = storeOf({ before: () => go.promise });
    const deaf: BlobReader = {
      name: "deaf",
      readBlob: (digest, options) => store.readBlob(digest, { range: options?.range }),
    };
    const memory = new WatchedBudget();
    const { signal } = controller;
    const range = { offset: 0, length: 3 * 256 * 1024 };
    const read = collect(readBlobRange(deaf, BLOB, range, { connections: 4, memory, signal }));
    controller.abort(new Error("enough"));
    go.resolve();
    await expect(read).rejects.toThrow("enough");
    expect(memory.taken).toBe(0);
  });

  test.each([
    ["too little", -1, 2 * MIB],
    ["too much", 1, 2 * MIB],
    ["too much at its end", 1, 1000],
  ])("is corrupt where a store gives %s", async (_, by, length) => {
    const lies: BlobReader = {
      name: "liar",
      readBlob: async (digest, { range } = {}) =>
        storeOf().readBlob(digest, { range: range && { ...range, length: range.length + by } }),
    };
    const memory = new WatchedBudget();
    let got = 0;
    const read = async () => {
      const options = { connections: 2, memory };
      for await (const chunk of readBlobRange(lies, BLOB, { offset: 5, length }, options))
        got += chunk.length;
    };
    await expect(read()).rejects.toMatchObject({ code: "corrupt" });
    expect(got).toBeLessThanOrEqual(length);
    expect(memory.taken).toBe(0);
  });

  test("is corrupt where the blob is absent", async () => {
    const empty: BlobReader = { name: "empty", readBlob: async () => undefined };
    const read = collect(
      readBlobRange(empty, BLOB, { offset: 0, length: 1 }, { memory: new MemoryBudget() }),
    );
    await expect(read).rejects.toThrow(`blob ${BLOB.digest} of empty is absent`);
  });
});

function createHash(): Bun.CryptoHasher {
  return new Bun.CryptoHasher("sha256");
}
