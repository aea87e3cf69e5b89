/** NARs of our own: ranges over parts, conditions, and what is checked of a range. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Part } from "../../../src/cache/part.ts";
import { messageOf } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { type NarContext, ownNar } from "../../../src/serve/answer-nar.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { noise } from "../../support/publish.ts";
import { propertyParameters } from "../../support/seed.ts";

const MIB = 1024 ** 2;

interface Case {
  readonly store: MemoryStore;
  readonly content: Uint8Array;
  readonly parts: Part[];
  readonly etag: string;
  readonly errors: string[];
  ask(headers?: Record<string, string>, method?: string): Promise<Response>;
}

/** A NAR of parts of these sizes; the last one is a slice in the middle of a pack. */
async function narOf(sizes: readonly number[]): Promise<Case> {
  const store = new MemoryStore();
  const content = noise(
    "nar",
    sizes.reduce((sum, size) => sum + size, 0),
  );
  const parts: Part[] = [];
  let at = 0;
  for (const [index, length] of sizes.entries()) {
    const piece = content.slice(at, at + length);
    const last = index === sizes.length - 1;
    const bytes = last ? Buffer.concat([noise("before", 1000), piece, noise("after", 500)]) : piece;
    const blob = digestOf(bytes);
    store.blobs.set(blob, new Uint8Array(bytes));
    parts.push({ blob, size: bytes.length, offset: last ? 1000 : 0, length });
    at += length;
  }
  const name = encodeBase32(new Bun.CryptoHasher("sha256").update(content).digest());
  const errors: string[] = [];
  const context: NarContext = {
    onBroken: (error) => void errors.push(messageOf(error)),
    underWay: () => 1,
    memory: new MemoryBudget(),
    connections: 3,
    clock: () => 0,
    exchange: { stream: (body: ReadableStream) => body } as unknown as NarContext["exchange"],
  };
  return {
    ...{ store, content, parts, errors },
    etag: `"sha256:${name}"`,
    ask: (headers = {}, method = "GET") =>
      ownNar(`${name}.nar.zst`, { parts }, store, new Request("http://x/nar", { method, headers }), context),
  };
}

const BUFFERED = [100_000, 70_000, 50_000];
const STREAMED = [3 * MIB, 2 * MIB, MIB];
const SIZES: [name: string, sizes: number[]][] = [
  ["buffered", BUFFERED],
  ["streamed", STREAMED],
];

describe.each(SIZES)("a NAR that is %s", (_, sizes) => {
  test("says that it takes ranges, and what it is, by GET and HEAD", async () => {
    const { ask, content, etag } = await narOf(sizes);
    for (const method of ["GET", "HEAD"]) {
      const answer = await ask({}, method);
      expect(answer.status).toBe(200);
      expect(Object.fromEntries(answer.headers)).toEqual({
        "content-type": "application/x-nix-nar",
        "accept-ranges": "bytes",
        "content-length": String(content.length),
        etag,
      });
      expect(await answer.bytes()).toEqual(method === "GET" ? content : new Uint8Array());
    }
  });

  test("gives any range, also across parts, and asks the store for nothing else", async () => {
    const { ask, content, store, etag } = await narOf(sizes);
    const size = content.length;
    // Around the places where parts meet, and anywhere.
    const meet = [0, sizes[0] as number, (sizes[0] as number) + (sizes[1] as number), size];
    const place = fc.oneof(
      fc.tuple(fc.constantFrom(...meet), fc.integer({ min: -2, max: 2 })).map(([at, by]) => at + by),
      fc.nat(size - 1),
    );
    const parameters = { ...propertyParameters(), numRuns: 60 };
    const read = store.readBlob.bind(store);
    let transferred = 0;
    store.readBlob = (digest, options) => {
      transferred += options?.range?.length ?? store.blobs.get(digest)?.length ?? 0;
      return read(digest, options);
    };
    await fc.assert(
      fc.asyncProperty(place, place, fc.boolean(), async (a, b, conditional) => {
        const first = Math.min(Math.max(0, Math.min(a, b)), size - 1);
        const last = Math.max(first, Math.max(a, b));
        transferred = 0;
        const answer = await ask({
          range: `bytes=${first}-${last}`,
          ...(conditional && { "if-range": etag }),
        });
        const expected = content.subarray(first, last + 1);
        expect(answer.status).toBe(206);
        expect(answer.headers.get("content-range")).toBe(
          `bytes ${first}-${first + expected.length - 1}/${size}`,
        );
        expect(answer.headers.get("content-length")).toBe(String(expected.length));
        expect(answer.headers.get("etag")).toBe(etag);
        const found = await answer.bytes();
        // toEqual takes long over MiBs.
        expect(Buffer.compare(found, expected)).toBe(0);
        if (sizes === STREAMED) expect(transferred).toBe(expected.length);
      }),
      parameters,
    );
  });

  test.each<[string, Record<string, string>, number, string | null]>([
    ["a suffix", { range: "bytes=-10" }, 206, "-"],
    ["from a byte on", { range: "bytes=1000-" }, 206, "-"],
    ["behind the end", { range: "bytes=100000000-" }, 416, "*"],
    ["several ranges", { range: "bytes=0-1,5-6" }, 200, null],
    ["no range", { range: "bytes=x" }, 200, null],
    ["another If-Range", { range: "bytes=0-1", "if-range": '"other"' }, 200, null],
    ["If-None-Match of another", { "if-none-match": '"other"' }, 200, null],
  ])("%s", async (_name, headers, status, kind) => {
    const { ask, content } = await narOf(sizes);
    const answer = await ask(headers);
    expect(answer.status).toBe(status);
    const range = answer.headers.get("content-range");
    if (kind === "*") expect(range).toBe(`bytes */${content.length}`);
    else expect(range === null).toBe(kind === null);
    const bytes = await answer.bytes();
    if (status !== 416) expect(String(bytes.length)).toBe(answer.headers.get("content-length") as string);
  });

  test("is 304 for whoever has it, also where a range is asked for; nothing is read", async () => {
    const { ask, etag, store } = await narOf(sizes);
    for (const method of ["GET", "HEAD"]) {
      const answer = await ask({ "if-none-match": `"x", W/${etag}`, range: "bytes=0-1" }, method);
      expect([answer.status, answer.headers.get("etag"), (await answer.bytes()).length]).toEqual([
        304,
        etag,
        0,
      ]);
    }
    expect((await ask({ range: "bytes=99999999-" })).status).toBe(416);
    expect((await ask({ range: "bytes=0-1" }, "HEAD")).status).toBe(200);
    expect(store.calls).toEqual([]);
  });
});

describe("a range with a damaged part", () => {
  const damage = ({ store, parts }: Case, index: number) => {
    const { blob } = parts[index] as Part;
    const bytes = Uint8Array.from(store.blobs.get(blob) ?? []);
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    store.blobs.set(blob, bytes);
  };
  const bytesOf = async (answer: Promise<Response>) => (await answer).bytes();

  test("of a small NAR is refused, wherever the damage is: the range is cut from the whole", async () => {
    const nar = await narOf(BUFFERED);
    damage(nar, 2);
    await expect(nar.ask({ range: "bytes=0-9" })).rejects.toMatchObject({ code: "corrupt" });
  });

  test("breaks where a whole part in it is wrong, before that part is complete", async () => {
    const nar = await narOf(STREAMED);
    damage(nar, 1);
    await expect(bytesOf(nar.ask({ range: `bytes=5-${5 * MIB + 5}` }))).rejects.toThrow();
    expect(nar.errors.length).toBe(1);
    // Short enough to be sent as a whole: refused.
    await expect(nar.ask({ range: `bytes=${3 * MIB}-${5 * MIB - 1}` })).rejects.toMatchObject({
      code: "corrupt",
    });
    // What does not touch it is right.
    expect((await bytesOf(nar.ask({ range: `bytes=0-${MIB}` }))).length).toBe(MIB + 1);
  });
});
