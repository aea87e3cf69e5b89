/** Reads one hostile index layer and prints how it ended, how many entries there were, and the peak of memory. */
import { formatLine } from "../../src/cache/entry.ts";
import { messageOf } from "../../src/errors.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { readLayer } from "../../src/protocol/layer-blob.ts";
import { peakMemory, repeated, ZSTD_MAGIC } from "./bombs.ts";
import { corpus } from "./mutate.ts";

const MIB = 1024 * 1024;
/** Text that repeats itself, without ever holding all of it. */
function compressed(first: string, thousand: string, lines: number): Uint8Array {
  const frames = [Bun.zstdCompressSync(Buffer.from(first))];
  const frame = Bun.zstdCompressSync(Buffer.from(thousand), { level: 19 });
  for (let done = 0; done < lines; done += 1000) frames.push(frame);
  return Buffer.concat(frames);
}

function bomb(name: string): Uint8Array {
  const [, , , segment = new Uint8Array()] = corpus("layer");
  const [header = "", entry = ""] = Buffer.from(segment).toString().split("\n");
  const [, cover = ""] = Buffer.from(corpus("layer")[2] ?? [])
    .toString()
    .split("\n");
  if (name === "zeros") return repeated(0x20, 80_000);
  if (name === "newlines") return repeated(0x0a, 80_000);
  if (name === "entries") return compressed(`${header}\n`, `${entry}\n`.repeat(1000), 2_000_000);
  if (name === "covers") {
    const first = '{"nixcache":1,"kind":"root","covers":9007199254740991}\n';
    // Padded with a field that is kept, with enough that is new to stay below the ratio.
    const long = (index: number) =>
      cover
        .replace('"paths"', `"${digestOf(String(index))}${"s".repeat(4000)}"`)
        .replace(/-[0-9a-f]{16}"/, `-${String(index).padStart(16, "0")}"`);
    const thousand = (from: number) =>
      Array.from({ length: 1000 }, (_, index) => `${long(from + index)}\n`).join("");
    const frames = Array.from({ length: 20 }, (_, at) => Bun.zstdCompressSync(thousand(at * 1000)));
    return Buffer.concat([Bun.zstdCompressSync(first), ...frames]);
  }
  if (name === "same-covers") {
    const first = '{"nixcache":1,"kind":"root","covers":9007199254740991}\n';
    return compressed(first, `${cover}\n`.repeat(1000), 200_000);
  }
  if (name === "broken") return compressed(`${header}\n`, `${entry.slice(1)}\n`.repeat(1000), 2_000_000);
  if (name === "frames") {
    const frame = Uint8Array.of(...ZSTD_MAGIC, 0x20, 0x01, 0x09, 0, 0, 0x41);
    return Buffer.concat(Array.from({ length: 500_000 }, () => frame));
  }
  if (name === "content-size") {
    // A single segment that claims 2^62 bytes, so that its window is as large.
    return Uint8Array.of(...ZSTD_MAGIC, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x29, 0, 0, 0x41);
  }
  return repeated(0x41, 1, Number(name.slice("window-".length)));
}

const name = process.argv[2] ?? "";
const content = bomb(name);
const blob = { digest: digestOf(content), size: content.length, content };
let lines = 0;
let message = "read to its end";
try {
  await readLayer(blob, "test", (line) => {
    lines += formatLine(line).length > 0 ? 1 : 0;
  });
} catch (error) {
  message = messageOf(error);
}
const peakMiB = (peakMemory() - content.length) / MIB;
console.log(JSON.stringify({ name, message, lines, peakMiB, size: content.length }));
