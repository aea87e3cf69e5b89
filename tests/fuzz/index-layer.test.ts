/** Index layers: bent text, bent zstd, and zstd that unpacks to more than anybody has memory for. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { formatLine, MAX_LINE_BYTES } from "../../src/cache/entry.ts";
import {
  BrokenLine,
  formatLayer,
  type LayerHeader,
  LayerParser,
  LineSplitter,
} from "../../src/cache/index-layer.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { readLayer } from "../../src/protocol/layer-blob.ts";
import { corpus, mutated } from "./mutate.ts";
import { attempt, attemptAsync, expectUnpolluted, fuzz, parameters } from "./property.ts";

interface Layer {
  readonly header: LayerHeader;
  readonly lines: readonly string[];
}

function parse(chunks: Iterable<Uint8Array>): Layer {
  const splitter = new LineSplitter("layer");
  const parser = new LayerParser("layer");
  const lines: string[] = [];
  for (const chunk of chunks) {
    for (const text of splitter.push(chunk)) {
      const line = entryOrBroken(parser, text);
      if (line !== undefined) lines.push(formatLine(line));
    }
  }
  splitter.end();
  return { header: parser.header(), lines };
}

/** What is no entry is passed over. */
function entryOrBroken(parser: LayerParser, text: string) {
  try {
    return parser.push(text);
  } catch (error) {
    if (error instanceof BrokenLine) return undefined;
    throw error;
  }
}

function* cut(bytes: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  for (let at = 0, turn = 0; at < bytes.length; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

async function unpack(content: Uint8Array): Promise<Layer> {
  const lines: string[] = [];
  const blob = { digest: digestOf(content), size: content.length, content };
  const header = await readLayer(blob, "test", (line) => void lines.push(formatLine(line)));
  return { header, lines };
}

test("bent lines, the same in whatever chunks they come", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 4 });
  fuzz(
    fc.tuple(mutated(corpus("layer")), sizes),
    1500,
    ["corrupt"],
    ([bytes, chunks]) => parse(cut(bytes, chunks)),
    ({ header, lines }, [bytes]) => {
      expect(parse([bytes])).toEqual({ header, lines });
      const own = [...formatLayer(header, [])].join("\n");
      expect(parse([Buffer.from(`${own}\n${lines.map((line) => `${line}\n`).join("")}`)])).toEqual({
        header,
        lines,
      });
    },
  );
});

test("bent zstd", async () => {
  const packed = corpus("layer").map(
    (text) => new Uint8Array(Bun.zstdCompressSync(text as Uint8Array<ArrayBuffer>)),
  );
  await fc.assert(
    fc.asyncProperty(mutated(packed), async (bytes) => {
      const result = await attemptAsync(["corrupt"], () => unpack(bytes));
      if (result === undefined) return;
      // What is taken is a layer whole, not the half before a break.
      const text = Bun.zstdDecompressSync(Buffer.from(bytes));
      expect(parse([text])).toEqual(result.value);
    }),
    parameters(800),
  );
  expectUnpolluted();
});

test("every cut of a frame, and bytes behind it", async () => {
  const [text = new Uint8Array()] = corpus("layer").slice(-1);
  const packed = new Uint8Array(Bun.zstdCompressSync(text as Uint8Array<ArrayBuffer>));
  const whole = await unpack(packed);
  for (let end = 0; end < packed.length; end++) {
    expect([end, await attemptAsync(["corrupt"], () => unpack(packed.subarray(0, end)))]).toEqual([
      end,
      undefined,
    ]);
  }
  for (const tail of ["x", "\0", "\n", "(\xb5/\xfd"]) {
    const bytes = Buffer.concat([packed, Buffer.from(tail, "latin1")]);
    expect([tail, await attemptAsync(["corrupt"], () => unpack(bytes))]).toEqual([tail, undefined]);
  }
  // A skippable frame holds nothing: it may stand anywhere, whatever it claims to hold must be there.
  const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
  expect(await unpack(Buffer.concat([skippable, packed, skippable]))).toEqual(whole);
  const liar = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
  expect(await attemptAsync(["corrupt"], () => unpack(Buffer.concat([packed, liar])))).toBeUndefined();
});

/** What `layer-process.ts` prints: in a process of its own, since only there memory can be told. */
async function measure(bomb: string): Promise<{ message: string; lines: number; peakMiB: number }> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "layer-process.ts"), bomb], {
    stdout: "pipe",
    stderr: "inherit",
    // More than a minute is a hang.
    timeout: 60_000,
  });
  const text = await child.stdout.text();
  expect([bomb, await child.exited]).toEqual([bomb, 0]);
  return JSON.parse(text);
}

/** An idle Bun with the sources loaded has some 60 MiB; a line may have 4 MiB, twice while it is put together. */
const PEAK_MIB = 200;

const BOMBS: [name: string, says: RegExp, most?: number][] = [
  // 4 bytes make 128 KiB: 32,768 times.
  ["zeros", /line 1 is longer than 4194304 bytes/],
  ["newlines", /line 1: not valid JSON/],
  ["entries", /unpacks to over 256 times its \d+ bytes/],
  // Half a million frames of one byte.
  ["frames", /middle of line 1/],
  // The covers of a root are held in memory, so there is a bound on them.
  ["same-covers", /line 3: it covers .* twice/],
  // Lines that are no entries.
  ["broken", /unpacks to over 256 times its \d+ bytes/],
  ["covers", /the header is longer than 67108864 characters/, 500],
  ["window-27", /middle of line 1/],
  ["window-28", /not valid zstd/],
  ["window-30", /not valid zstd/],
  ["window-41", /not valid zstd/],
  ["content-size", /not valid zstd/],
];

test.each(BOMBS)(
  "a bomb of %s",
  async (bomb, says, most = PEAK_MIB) => {
    const { message, peakMiB } = await measure(bomb);
    expect(message).toMatch(says);
    expect(message.length).toBeLessThan(400);
    expect(peakMiB).toBeLessThan(most);
  },
  90_000,
);

test("fields of a header that are nested without end", () => {
  const deep = `${"[".repeat(60_000)}${"]".repeat(60_000)}`;
  for (const field of ["nonce", "kind", "covers", "record", "nixcache", "other"]) {
    const first = `{"nixcache":1,"kind":"root","covers":0,"${field}":${deep}}\n`;
    attempt(["corrupt"], () => parse([Buffer.from(first)]));
  }
});

test("the longest line that is allowed, and one byte more", () => {
  const header = Buffer.from(corpus("layer")[1] ?? []);
  const line = (length: number) => Buffer.concat([header, Buffer.alloc(length, 0x20), Buffer.from("\n")]);
  const inOne = (bytes: Uint8Array) => () => parse(cut(bytes, [65_536]));
  expect(inOne(line(MAX_LINE_BYTES))().lines).toEqual([]);
  expect(inOne(line(MAX_LINE_BYTES + 1))).toThrow("is longer than");
});
