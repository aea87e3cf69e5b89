/** Listings, build logs and realisations from sources of ours. */
import { expect, test } from "bun:test";
import type { Attachment } from "../../../src/cache/attachment.ts";
import type { Part } from "../../../src/cache/part.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { ownAttached, ownListing } from "../../../src/serve/attached.ts";
import { Exchange } from "../../../src/serve/exchange.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import type { Source } from "../../../src/serve/source.ts";
import { Traffic } from "../../../src/serve/traffic.ts";
import { MemoryStore } from "../../support/memory-store.ts";

const HASH = "0".repeat(32);
const store = new MemoryStore();

/** A part that holds the zstd of a text, in the middle of a blob. */
function packed(text: string | Uint8Array<ArrayBuffer>): Part {
  const content = Bun.zstdCompressSync(text);
  const blob = Buffer.concat([Buffer.from("before"), content, Buffer.from("behind")]);
  store.blobs.set(digestOf(blob), Uint8Array.from(blob));
  return { blob: digestOf(blob), size: blob.length, offset: 6, length: content.length };
}

function source(listings: Record<string, Part>, files: Record<string, Attachment> = {}): Source {
  return {
    store,
    view: {
      narinfo: () => undefined,
      nar: () => undefined,
      listing: (hash) => listings[hash],
      attached: (path) => files[path],
    },
  };
}

function context() {
  const errors: string[] = [];
  const exchange = new Exchange(new Traffic().of("attached"), 0);
  const given = { onError: (m: string) => void errors.push(m), memory: new MemoryBudget(), exchange };
  return { errors, exchange, given };
}

const request = (method = "GET") => new Request("http://127.0.0.1/x", { method });

test("a listing comes unpacked, as JSON, from the first source that has it", async () => {
  const sources = [source({}), source({ [HASH]: packed('{"version":1}') }), source({ [HASH]: packed("x") })];
  const { given, exchange } = context();
  const response = (await ownListing(HASH, request(), sources, given)) as Response;
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(await response.text()).toBe('{"version":1}');
  expect([exchange.source, exchange.bytes]).toEqual(["cache", 13]);
  expect(ownListing("1".repeat(32), request(), sources, given)).toBeUndefined();
});

test.each<[string, string]>([
  ["log/a.drv", "text/plain; charset=utf-8"],
  ["realisations/sha256:ab!out.doi", "application/json"],
  ["build-trace-v2/a.drv/out.doi", "application/json"],
  ["debuginfo/ab", "application/json"],
])("%s is of the type %s, inline or packed, and HEAD says what GET has", async (path, type) => {
  for (const file of [{ text: "{ä}" }, { part: packed("{ä}") }]) {
    const sources = [source({}, { [path]: file })];
    const get = (await ownAttached(path, request(), sources, context().given)) as Response;
    expect(get.headers.get("content-type")).toBe(type);
    expect(await get.text()).toBe("{ä}");
    const head = (await ownAttached(path, request("HEAD"), sources, context().given)) as Response;
    expect(Object.fromEntries(head.headers)).toEqual({ "content-type": type, "content-length": "4" });
    expect(await head.text()).toBe("");
  }
  expect(ownAttached(path, request(), [source({})], context().given)).toBeUndefined();
});

const LONG = Buffer.from(Array.from({ length: 200_000 }, (_, i) => `line ${i * i}\n`).join(""));

test("a long log is streamed, byte for byte, and gives back the memory that it took", async () => {
  const { given, exchange } = context();
  const sources = [source({}, { "log/long.drv": { part: packed(LONG) } })];
  const before = given.memory.take(1 << 30);
  given.memory.giveBack(before);
  const response = (await ownAttached("log/long.drv", request(), sources, given)) as Response;
  expect(Buffer.from(await response.arrayBuffer()).equals(LONG)).toBe(true);
  expect(exchange.bytes).toBe(LONG.length);
  expect(given.memory.take(1 << 30)).toBe(before);
});

test("a client that goes away in the middle of a long log ends the reading", async () => {
  const { given, errors } = context();
  const sources = [source({}, { "log/long.drv": { part: packed(LONG) } })];
  const before = given.memory.take(1 << 30);
  given.memory.giveBack(before);
  const response = (await ownAttached("log/long.drv", request(), sources, given)) as Response;
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  await reader.read();
  await reader.cancel();
  expect(errors).toEqual([]);
  expect(given.memory.take(1 << 30)).toBe(before);
});

test("a HEAD for a long log says nothing of its length", async () => {
  const sources = [source({}, { "log/long.drv": { part: packed(LONG) } })];
  const { given } = context();
  const before = given.memory.take(1 << 30);
  given.memory.giveBack(before);
  const response = (await ownAttached("log/long.drv", request("HEAD"), sources, given)) as Response;
  expect(given.memory.take(1 << 30)).toBe(before);
  expect(response.headers.has("content-length")).toBe(false);
  expect(response.body).not.toBeNull();
  expect(await response.text()).toBe("");
});

test("a file that unpacks to more than a listing may have is broken off", async () => {
  const { given, errors } = context();
  const bomb = packed(new Uint8Array(65 * 1024 * 1024));
  expect(bomb.length).toBeLessThan(10_000);
  const response = (await ownListing(HASH, request(), [source({ [HASH]: bomb })], given)) as Response;
  let got = 0;
  const read = async () => {
    for await (const chunk of response.body as ReadableStream<Uint8Array>) got += chunk.length;
  };
  await expect(read()).rejects.toThrow("it unpacks to more than 67108864 bytes");
  expect(got).toBeLessThanOrEqual(64 * 1024 * 1024);
  expect(errors).toHaveLength(1);
});

test.each<[string, () => Part, string]>([
  ["is no zstd", () => ({ ...packed("x"), offset: 0 }), "not valid zstd"],
  [
    "ends too soon",
    () => {
      const part = packed(LONG.subarray(0, 1000));
      return { ...part, length: part.length - 3 };
    },
    "not valid zstd",
  ],
  [
    "is in a blob that is gone",
    () => {
      const part = packed("gone");
      store.blobs.delete(part.blob);
      return part;
    },
    "is absent, although the index names it",
  ],
  [
    "is a blob of its own with other bytes",
    () => {
      const bytes = Bun.zstdCompressSync("right");
      const wrong = Bun.zstdCompressSync("wrong");
      const blob: Digest = digestOf(bytes);
      store.blobs.set(blob, Uint8Array.from(wrong));
      return { blob, size: wrong.length, offset: 0, length: wrong.length };
    },
    "the bytes have the SHA-256",
  ],
])("a file that %s is an error, not an answer", async (_, part, message) => {
  const answer = ownListing(HASH, request(), [source({ [HASH]: part() })], context().given);
  await expect(answer as Promise<Response>).rejects.toThrow(message);
});
