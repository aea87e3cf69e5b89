/** Downloads that break: they go on where they were, or end with an error, never early and well. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import { download, type Opened } from "../../../src/oci/download.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import { bytesOf, randomBytes } from "../../contract/oci/helpers.ts";
import { type Fault, ranged, withDouble } from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const BYTES = randomBytes(300_000);
const DIGEST = digestOf(BYTES);

/** Sends `count` bytes of what was asked for, then breaks the connection. */
const breakAfter = (count: number) => (range: string | null) => {
  let sent = false;
  return new Response(
    new ReadableStream({
      async pull(controller) {
        if (sent) throw new Error("a break on purpose");
        sent = true;
        const bytes = await ranged(BYTES, range).bytes();
        controller.enqueue(bytes.slice(0, count));
      },
    }),
    { status: range === null ? 200 : 206, headers: contentRangeOf(range) },
  );
};
const contentRangeOf = (range: string | null): Record<string, string> => {
  const value = ranged(BYTES, range).headers.get("content-range");
  return value === null ? {} : { "content-range": value };
};

/** The first `times` reads of the storage are answered so. */
const storageFault = (times: number, answer: (range: string | null) => Response): Fault => {
  let left = times;
  return ({ origin, headers }) =>
    origin === "storage" && left-- > 0 ? answer(headers.get("range")) : undefined;
};

describe("through a registry", () => {
  test("a whole blob goes on after breaks, each time from where it was", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      double.faults.push(storageFault(3, breakAfter(50_000)));
      expect(await bytesOf(await openDouble(double).readBlob(DIGEST))).toEqual(BYTES);
      const storage = double.requests.filter(({ origin }) => origin === "storage");
      expect(storage.map(({ headers }) => headers.get("range"))).toEqual([
        null,
        "bytes=50000-299999",
        "bytes=100000-299999",
        "bytes=150000-299999",
      ]);
    }));

  test("a range goes on after breaks", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      double.faults.push(storageFault(2, breakAfter(1000)));
      const range = { offset: 1000, length: 100_000 };
      expect(await bytesOf(await openDouble(double).readBlob(DIGEST, { range }))).toEqual(
        BYTES.slice(1000, 101_000),
      );
    }));

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

  test("a server that sends another range than asked for is an error", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      double.faults.push(storageFault(1, () => ranged(BYTES, "bytes=11-20")));
      await expect(
        openDouble(double).readBlob(DIGEST, { range: { offset: 10, length: 10 } }),
      ).rejects.toMatchObject({ code: "protocol" });
    }));

  test("a blob that is shorter than the registry says ends in an error", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const short = () =>
        new Response(new ReadableStream({ start: (c) => (c.enqueue(BYTES.slice(0, 100)), c.close()) }));
      double.faults.push(storageFault(1, short));
      double.faults.push(storageFault(100, () => new Response("", { status: 500 })));
      const stream = await openDouble(double).readBlob(DIGEST);
      await expect(bytesOf(stream)).rejects.toMatchObject({ code: "unreachable" });
    }));

  test("a blob that is longer than the registry says is corrupt", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES.slice(0, 100));
      const long = () =>
        new Response(new ReadableStream({ start: (c) => (c.enqueue(BYTES.slice(0, 101)), c.close()) }));
      double.faults.push(storageFault(1, long));
      const stream = await openDouble(double).readBlob(DIGEST);
      await expect(bytesOf(stream)).rejects.toMatchObject({ code: "corrupt" });
    }));

  test("a blob that is deleted meanwhile ends in an error", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      double.faults.push(storageFault(1, breakAfter(10)));
      const stream = await openDouble(double).readBlob(DIGEST);
      double.blobs.delete(DIGEST);
      await expect(bytesOf(stream)).rejects.toMatchObject({
        code: "unreachable",
        message: expect.stringContaining("deleted after 10"),
      });
    }));

  test("a reader who leaves ends the transfer", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const left = Promise.withResolvers<void>();
      double.faults.push(
        storageFault(
          1,
          () =>
            new Response(
              new ReadableStream({
                pull: (controller) => controller.enqueue(new Uint8Array(65_536)),
                cancel: () => left.resolve(),
              }),
            ),
        ),
      );
      const reader = (await openDouble(double).readBlob(DIGEST))?.getReader();
      await reader?.read();
      await reader?.cancel();
      await left.promise;
    }));

  test("an interrupt in the middle errors the stream", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const endless = () =>
        new Response(new ReadableStream({ start: (controller) => controller.enqueue(BYTES.slice(0, 10)) }));
      double.faults.push(storageFault(1, endless));
      const controller = new AbortController();
      const stream = await openDouble(double).readBlob(DIGEST, { signal: controller.signal });
      const reader = stream?.getReader();
      expect((await reader?.read())?.value?.length).toBe(10);
      const next = reader?.read();
      controller.abort();
      await expect(next as Promise<unknown>).rejects.toMatchObject({ code: "interrupted" });
    }));

  test("a transfer that stands still is cut, and goes on", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const network = testNetwork();
      const stalls = () =>
        new Response(new ReadableStream({ start: (controller) => controller.enqueue(BYTES.slice(0, 10)) }));
      double.faults.push(storageFault(1, stalls));
      const stream = await openDouble(double, { network }).readBlob(DIGEST);
      const reader = stream?.getReader();
      expect((await reader?.read())?.value).toEqual(BYTES.slice(0, 10));
      const next = reader?.read();
      await network.fireTimer(PATIENT.stallTimeoutMs);
      expect((await next)?.value?.[0]).toBe(BYTES[10] as number);
      await reader?.cancel();
    }));
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
