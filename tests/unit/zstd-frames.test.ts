/** Unpacking frame by frame: the same as unpacking the stream, whatever comes and however it is cut. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { decompress } from "../../src/zstd.ts";
import { giveBack, unpackFrames } from "../../src/zstd-frames.ts";
import { propertyParameters } from "../support/seed.ts";

const pack = (bytes: Uint8Array, level = 3) =>
  Bun.zstdCompressSync(bytes as Uint8Array<ArrayBuffer>, { level });

async function* cutInto(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    yield bytes.slice(at, at + size);
    at += size;
  }
  if (at < bytes.length) yield bytes.slice(at);
}

async function all(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks));
}

/** What unpacking the stream gives; undefined where that refuses it. */
async function oracle(bytes: Uint8Array): Promise<Buffer | undefined> {
  return all(decompress(new Blob([bytes as Uint8Array<ArrayBuffer>]).stream())).catch(() => undefined);
}

const cuts = fc.array(fc.integer({ min: 1, max: 4000 }), { maxLength: 20 });

describe("unpacking", () => {
  test("gives back what was packed into frames, however they are cut", async () => {
    const frame = fc.record({
      bytes: fc.uint8Array({ maxLength: 3000 }),
      // Whether it is large enough to be unpacked as a whole.
      repeat: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 100, max: 300 })),
      level: fc.constantFrom(1, 3, 9),
    });
    const property = fc.asyncProperty(
      fc.array(frame, { minLength: 1, maxLength: 6 }),
      cuts,
      async (frames, sizes) => {
        const contents = frames.map(({ bytes, repeat }) => Buffer.concat(Array(repeat).fill(bytes)));
        const packed = Buffer.concat(contents.map((content, i) => pack(content, frames[i]?.level)));
        expect(await all(unpackFrames(cutInto(packed, sizes)))).toEqual(Buffer.concat(contents));
      },
    );
    await fc.assert(property, { ...propertyParameters(), numRuns: 60 });
  });

  test("refuses and takes what the stream's decoder does, with one byte changed, cut off, or more behind", async () => {
    const content = Buffer.from("an index repeats itself, and again: ".repeat(2500));
    const frames = Buffer.concat([pack(content), pack(content.subarray(0, 70_000)), pack(new Uint8Array())]);
    const change = fc.record({
      at: fc.nat(frames.length - 1),
      byte: fc.integer({ min: 0, max: 255 }),
      length: fc.oneof(fc.constant(frames.length), fc.nat(frames.length)),
      more: fc.oneof(fc.constant(new Uint8Array()), fc.uint8Array({ maxLength: 40 })),
    });
    const property = fc.asyncProperty(change, cuts, async ({ at, byte, length, more }, sizes) => {
      const changed = Buffer.from(frames);
      changed[at] = byte;
      const input = Buffer.concat([changed.subarray(0, length), more]);
      const found = await all(unpackFrames(cutInto(input, sizes))).catch(() => undefined);
      expect(found).toEqual(await oracle(input));
    });
    await fc.assert(property, { ...propertyParameters(), numRuns: 300 });
  });

  test("every cut but those between frames is an error", async () => {
    const one = pack(Buffer.from("one ".repeat(20_000)));
    const both = Buffer.concat([one, pack(Buffer.from("two ".repeat(20_000)))]);
    for (let length = 1; length < both.length; length++) {
      if (length === one.length) continue;
      await expect(all(unpackFrames(cutInto(both.subarray(0, length), [])))).rejects.toThrow();
    }
  });

  test("a frame that is large, or says nothing of its size, is unpacked as a stream", async () => {
    const large = Buffer.alloc(20 * 1024 * 1024, "large ");
    const packed = Buffer.concat([pack(Buffer.from("small")), pack(large), pack(Buffer.from("small again"))]);
    const chunks = await Array.fromAsync(unpackFrames(cutInto(packed, [])));
    expect(
      Buffer.concat(chunks).equals(Buffer.concat([Buffer.from("small"), large, Buffer.from("small again")])),
    ).toBe(true);
    for (const chunk of chunks) expect(chunk.length).toBeLessThan(16 * 1024 * 1024);
  });

  test("chunks may be given back one by one, however they were unpacked", async () => {
    const large = Buffer.alloc(40 * 1024 * 1024, "a frame that is unpacked as a stream ");
    const whole = Buffer.alloc(300_000, "a frame that is unpacked as a whole ");
    const packed = Buffer.concat([pack(whole), pack(whole), pack(large), pack(whole)]);
    const hasher = new Bun.CryptoHasher("sha256");
    for await (const chunk of unpackFrames(cutInto(packed, [100_000]))) {
      hasher.update(chunk);
      giveBack(chunk);
      expect(chunk.length).toBe(0);
    }
    const expected = new Bun.CryptoHasher("sha256").update(Buffer.concat([whole, whole, large, whole]));
    expect(hasher.digest("hex")).toBe(expected.digest("hex"));
  });

  test("whoever stops reading stops the source", async () => {
    // Of random bytes: they stay as many.
    const frame = pack(crypto.getRandomValues(new Uint8Array(65_536)));
    let [given, isOver] = [0, false];
    async function* source() {
      try {
        for (; given < 1000; given++) yield frame;
      } finally {
        isOver = true;
      }
    }
    for await (const _ of unpackFrames(source())) break;
    expect(given * frame.length).toBeLessThan(2 * 1024 * 1024);
    expect(isOver).toBe(true);
  });
});
