/** Downloads that break: they go on where they were, or end with an error, never early and well. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import { download, type Opened } from "../../../src/oci/download.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import { bytesOf, randomBytes } from "../../contract/oci/helpers.ts";
import {
  type Fault,
  type RawAnswer,
  type RawServer,
  type RegistryDouble,
  ranged,
  startRaw,
  withDouble,
} from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const BYTES = randomBytes(300_000);
const DIGEST = digestOf(BYTES);

/** A proper answer to a Range, or without one, of which only `count` bytes are sent. */
function brokenAfter(count: number, range: string | undefined, hangUp = false): RawAnswer {
  const [, first, last] = /^bytes=([0-9]+)-([0-9]*)$/.exec(range ?? "") ?? [];
  const from = Number(first ?? 0);
  const to = last ? Number(last) : BYTES.length - 1;
  const head =
    range === undefined
      ? `HTTP/1.1 200 OK\ncontent-length: ${BYTES.length}`
      : `HTTP/1.1 206 Partial Content\ncontent-length: ${to - from + 1}\ncontent-range: bytes ${from}-${to}/${BYTES.length}`;
  return { head, body: BYTES.slice(from, Math.min(from + count, to + 1)), hangUp };
}

/** A double with the blob, whose storage is a raw server. */
async function withRaw(
  answer: (range: string | undefined, count: number) => RawAnswer,
  body: (double: RegistryDouble, raw: RawServer) => Promise<void>,
): Promise<void> {
  const raw = startRaw(answer);
  try {
    await withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const location = `http://${raw.host}/blob`;
      double.faults.push(({ method, path, headers }) =>
        method === "GET" &&
        path.includes("/blobs/") &&
        headers.has("authorization") &&
        double.blobs.has(DIGEST)
          ? new Response(null, { status: 307, headers: { location } })
          : undefined,
      );
      await body(double, raw);
    });
  } finally {
    raw.close();
  }
}

/** The first `times` reads of the double's own storage are answered so. */
const storageFault = (times: number, answer: (range: string | null) => Response): Fault => {
  let left = times;
  return ({ origin, headers }) =>
    origin === "storage" && left-- > 0 ? answer(headers.get("range")) : undefined;
};

/** Chunked, without a length. */
const chunked = (bytes: Uint8Array, end: string): RawAnswer => ({
  head: "HTTP/1.1 200 OK\ntransfer-encoding: chunked",
  body: Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from(`\r\n${end}`)]),
  hangUp: true,
});

describe("through a registry", () => {
  /** Reads all, and has the server hang up whenever that many bytes have come: bytes under way would be lost. */
  const readWithBreaks = async (
    stream: ReadableStream<Uint8Array> | undefined,
    raw: RawServer,
    breaks: number[],
  ): Promise<Uint8Array> => {
    const chunks: Uint8Array[] = [];
    let done = 0;
    for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) {
      chunks.push(chunk);
      done += chunk.length;
      if (breaks.includes(done)) raw.hangUp();
    }
    return new Uint8Array(Buffer.concat(chunks));
  };

  test("a whole blob goes on after breaks, each time from where it was", () =>
    withRaw(
      (range, count) => brokenAfter(count < 4 ? 50_000 : 300_000, range),
      async (double, raw) => {
        const stream = await openDouble(double).readBlob(DIGEST);
        expect(await readWithBreaks(stream, raw, [50_000, 100_000, 150_000])).toEqual(BYTES);
        expect(raw.ranges as unknown[]).toEqual([
          undefined,
          "bytes=50000-299999",
          "bytes=100000-299999",
          "bytes=150000-299999",
        ]);
        // The registry is asked for a new link each time: the old one may have expired.
        expect(double.count("GET", /blobs/)).toBeGreaterThanOrEqual(4);
      },
    ));

  test("a range goes on after breaks", () =>
    withRaw(
      (range, count) => brokenAfter(count < 3 ? 1000 : 300_000, range),
      async (double, raw) => {
        const stream = await openDouble(double).readBlob(DIGEST, {
          range: { offset: 1000, length: 100_000 },
        });
        expect(await readWithBreaks(stream, raw, [1000, 2000])).toEqual(BYTES.slice(1000, 101_000));
        expect(raw.ranges as string[]).toEqual([
          "bytes=1000-100999",
          "bytes=2000-100999",
          "bytes=3000-100999",
        ]);
      },
    ));

  test("a server that ignores Range: bytes before are skipped, bytes after are cut", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      double.faults.push(storageFault(100, () => ranged(BYTES, null)));
      const store = openDouble(double);
      for (const [offset, length] of [
        [0, 10],
        [5, 10],
        [299_990, 10],
        [100_000, 150_000],
      ] as const) {
        const stream = await store.readBlob(DIGEST, { range: { offset, length } });
        expect(await bytesOf(stream)).toEqual(BYTES.slice(offset, offset + length));
      }
      const outside = async () =>
        bytesOf(await store.readBlob(DIGEST, { range: { offset: 299_999, length: 2 } }));
      await expect(outside()).rejects.toMatchObject({ code: "corrupt" });
    }));

  test("a server that sends another range than asked for is asked for the whole, and after three for no range for a while", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const network = testNetwork();
      const store = openDouble(double, { network });
      const read = async () => bytesOf(await store.readBlob(DIGEST, { range: { offset: 10, length: 10 } }));
      const another = () => double.faults.push(storageFault(1, () => ranged(BYTES, "bytes=11-20")));
      // One in between that is right, and the next begin anew.
      for (const isOdd of [true, true, false, true, true, true]) {
        expect(store.ignoresRange?.()).toBe(false);
        if (isOdd) another();
        expect(await read()).toEqual(BYTES.slice(10, 20));
      }
      expect(store.ignoresRange?.()).toBe(true);
      const rangesAsked = () => double.requests.filter(({ headers }) => headers.has("range")).length;
      const before = rangesAsked();
      expect(await read()).toEqual(BYTES.slice(10, 20));
      expect(rangesAsked()).toBe(before);
      network.advance(3_600_000);
      expect(await read()).toEqual(BYTES.slice(10, 20));
      expect(rangesAsked()).toBeGreaterThan(before);
      expect(store.ignoresRange?.()).toBe(false);
    }));

  test("without a length, a body that ends well but early is found out by the registry's size", () =>
    withRaw(
      () => chunked(BYTES.slice(0, 100), "0\r\n\r\n"),
      async (double) => {
        const stream = await openDouble(double).readBlob(DIGEST);
        await expect(bytesOf(stream)).rejects.toThrow("the body ended after 100 of 300000 bytes");
      },
    ));

  test("without a length, a body that goes on is corrupt", () =>
    withRaw(
      () => chunked(Buffer.concat([BYTES, BYTES.slice(0, 1)]), "0\r\n\r\n"),
      async (double) => {
        const stream = await openDouble(double).readBlob(DIGEST);
        await expect(bytesOf(stream)).rejects.toMatchObject({ code: "corrupt" });
      },
    ));

  test("a storage that always breaks before a byte: an error, after as many tries as the policy has", () =>
    withRaw(
      (range) => brokenAfter(0, range, true),
      async (double, raw) => {
        const read = async () => bytesOf(await openDouble(double).readBlob(DIGEST));
        await expect(read()).rejects.toMatchObject({ code: "unreachable" });
        expect(raw.ranges.length).toBeLessThanOrEqual(PATIENT.attempts ** 2);
      },
    ));

  test("a blob that is deleted meanwhile ends in an error", () =>
    withRaw(
      (range) => brokenAfter(10, range),
      async (double, raw) => {
        const stream = await openDouble(double).readBlob(DIGEST);
        double.blobs.delete(DIGEST);
        await expect(readWithBreaks(stream, raw, [10])).rejects.toThrow(
          "the blob was deleted after 10 of 300000 bytes",
        );
      },
    ));

  test("a reader who leaves ends the transfer", () =>
    withRaw(
      (range) => brokenAfter(10, range),
      async (double, raw) => {
        const reader = (await openDouble(double).readBlob(DIGEST))?.getReader();
        expect((await reader?.read())?.value?.length).toBe(10);
        await reader?.cancel();
        await raw.left;
      },
    ));

  test("an interrupt in the middle errors the stream", () =>
    withRaw(
      (range) => brokenAfter(10, range),
      async (double, raw) => {
        const controller = new AbortController();
        const stream = await openDouble(double).readBlob(DIGEST, { signal: controller.signal });
        const reader = stream?.getReader();
        expect((await reader?.read())?.value?.length).toBe(10);
        const next = reader?.read();
        controller.abort();
        await expect(next as Promise<unknown>).rejects.toMatchObject({ code: "interrupted" });
        await raw.left;
      },
    ));

  test("defect 8: only a transfer that stands still is cut, and it goes on", () =>
    withRaw(
      (range, count) => (count === 1 ? brokenAfter(10, range) : brokenAfter(300_000, range)),
      async (double, raw) => {
        const network = testNetwork();
        const reader = (await openDouble(double, { network }).readBlob(DIGEST))?.getReader();
        expect((await reader?.read())?.value).toEqual(BYTES.slice(0, 10));
        const next = reader?.read();
        await network.fireTimer(PATIENT.stallTimeoutMs);
        expect((await next)?.value?.[0]).toBe(BYTES[10] as number);
        expect(raw.ranges).toEqual([undefined, "bytes=10-299999"]);
        await reader?.cancel();
      },
    ));
});

describe("the stream", () => {
  const bodyOf = (chunks: readonly Uint8Array[], fail: boolean): ReadableStream<Uint8Array> => {
    let i = 0;
    return new ReadableStream({
      pull(controller) {
        const chunk = chunks[i++];
        if (chunk !== undefined) controller.enqueue(chunk);
        else if (fail) controller.error(new Error("a break on purpose"));
        else controller.close();
      },
    });
  };
  const opened = (body: ReadableStream<Uint8Array>, skip = 0, exact = true): Opened => ({
    body,
    skip,
    exact,
    close: () => {},
  });
  const options = (length: number, first: Opened, reopen: (done: number) => Promise<Opened | undefined>) => ({
    ...{ what: "GET x", length, first, reopen },
    ...{ policy: PATIENT, network: testNetwork() },
  });

  test("reads nothing ahead of its reader", async () => {
    let pulls = 0;
    const body = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          pulls++;
          controller.enqueue(new Uint8Array(10));
        },
      },
      { highWaterMark: 0 },
    );
    const reader = download(options(1000, opened(body), async () => undefined)).getReader();
    await Bun.sleep(0);
    expect(pulls).toBe(0);
    await reader.read();
    await reader.read();
    expect(pulls).toBe(2);
    await reader.cancel();
  });

  test("is corrupt when more comes after the last byte, but a break there is none", async () => {
    const chunks = [new Uint8Array(5), new Uint8Array(1)];
    const more = download(options(5, opened(bodyOf(chunks, false)), async () => undefined));
    await expect(bytesOf(more)).rejects.toMatchObject({ code: "corrupt" });
    const cut = download(options(5, opened(bodyOf(chunks, false), 0, false), async () => undefined));
    expect((await bytesOf(cut)).length).toBe(5);
    const broken = download(options(5, opened(bodyOf(chunks.slice(0, 1), true)), async () => undefined));
    expect((await bytesOf(broken)).length).toBe(5);
    const empty = download(options(0, opened(bodyOf([], false)), async () => undefined));
    expect((await bytesOf(empty)).length).toBe(0);
  });

  test("gives up after as many breaks in a row as the policy allows, none of which gave a byte", async () => {
    let reopened = 0;
    const reopen = async () => {
      reopened++;
      return opened(bodyOf([], true));
    };
    const stream = download(options(10, opened(bodyOf([new Uint8Array(3)], true)), reopen));
    await expect(bytesOf(stream)).rejects.toMatchObject({ code: "unreachable" });
    expect(reopened).toBe(PATIENT.attempts - 1);
  });

  test("is exact, for any chunks, skips and breaks", async () => {
    const data = randomBytes(500);
    const part = fc.record({
      size: fc.nat(60),
      skip: fc.nat(40),
      chunk: fc.integer({ min: 1, max: 30 }),
      fail: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(400),
        fc.nat(100),
        fc.array(part, { maxLength: 12 }),
        async (start, length, parts) => {
          const queue = [...parts];
          const open = async (done: number): Promise<Opened> => {
            const at = start + done;
            // When the breaks are over, the server ignores Range and sends all there is.
            const { size, skip, chunk, fail } = queue.shift() ?? {
              size: 500,
              skip: at,
              chunk: 7,
              fail: false,
            };
            const from = Math.max(0, at - skip);
            const slice = data.subarray(from, Math.min(at + size, data.length));
            const chunks = Array.from({ length: Math.ceil(slice.length / chunk) }, (_, i) =>
              slice.subarray(i * chunk, (i + 1) * chunk),
            );
            return opened(bodyOf(chunks, fail), at - from, false);
          };
          const policy = { ...PATIENT, attempts: 100 };
          const stream = download({ ...options(length, await open(0), open), policy });
          expect(await bytesOf(stream)).toEqual(data.slice(start, start + length));
        },
      ),
    );
  });
});
