/** The NAR reader: bent archives in chunks of any size. It holds a word, never what a length claims. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import { encodedLength, encodeWords, MAX_NAR_DEPTH, writeLength } from "../../src/nar/archive.ts";
import { ListingBuilder } from "../../src/nar/listing.ts";
import { NarReader, type NarVisitor } from "../../src/nar/reader.ts";
import { corpus, mutated } from "./mutate.ts";
import { attempt, fuzz } from "./property.ts";

/** What a reading came to, as text: equal texts are equal readings. */
function read(bytes: Uint8Array, chunkSizes: readonly number[]): string {
  const seen: string[] = [];
  const hasher = new Bun.CryptoHasher("sha256");
  const listing = new ListingBuilder();
  const visitor: NarVisitor = {
    directory: (name) => {
      listing.directory(name);
      seen.push(`d ${hex(name)}`);
    },
    endDirectory: () => {
      listing.endDirectory();
      seen.push("e");
    },
    regular: (name, file) => {
      listing.regular(name, file);
      seen.push(`r ${hex(name)} ${file.size} ${file.offset} ${file.executable}`);
    },
    contents: (piece) => void hasher.update(piece),
    symlink: (name, target) => {
      listing.symlink(name, target);
      seen.push(`l ${hex(name)} ${hex(target)}`);
    },
  };
  const reader = new NarReader(visitor);
  let end = "";
  try {
    for (let at = 0, turn = 0; at < bytes.length; turn++) {
      const size = chunkSizes[turn % chunkSizes.length] ?? 1;
      reader.write(bytes.subarray(at, at + size));
      at += size;
    }
    reader.end();
    const { text } = listing;
    if (text !== undefined) JSON.parse(text);
    expect(reader.offset).toBe(bytes.length);
    end = "good";
  } catch (error) {
    const first = error;
    // Once refused it stays so.
    expect(() => reader.write(Uint8Array.of(1))).toThrow(first as Error);
    expect(() => reader.end()).toThrow(first as Error);
    seen.push(String(first));
    attemptOnly(first);
    end = "refused";
  }
  return `${seen.join("\n")}\n${hasher.digest("hex")} ${end}`;
}

function attemptOnly(error: unknown): void {
  attempt(["corrupt"], () => {
    throw error;
  });
}

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex");

test("bent archives, the same in whatever chunks they come", () => {
  const chunks = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 });
  fuzz(fc.tuple(mutated(corpus("nar")), chunks), 1500, [], ([bytes, sizes]) => {
    if (bytes.length > 20_000) return;
    expect(read(bytes, sizes)).toBe(read(bytes, [Number.MAX_SAFE_INTEGER]));
  });
});

test("every byte of a small archive changed, and every cut", () => {
  const nar = encodeWords(
    "nix-archive-1",
    "(",
    "type",
    "regular",
    "executable",
    "",
    "contents",
    "hello",
    ")",
  );
  for (let at = 0; at < nar.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const bent = Uint8Array.from(nar);
      bent[at] = value;
      read(bent, [7]);
    }
    expect(read(nar.subarray(0, at), [at + 1])).toEndWith("refused");
  }
});

test("any 64-bit length in place of every length", () => {
  for (const nar of corpus("nar")) {
    const small = nar.subarray(0, 2000);
    for (let at = 0; at + 8 <= small.length; at += 8) {
      for (const length of [2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53]) {
        const bent = Uint8Array.from(small);
        writeLength(bent, at, length);
        read(bent, [small.length]);
      }
      const bent = Uint8Array.from(small);
      bent.fill(0xff, at, at + 8);
      read(bent, [64]);
    }
  }
});

test("directories inside each other without end", () => {
  const level = encodeWords("(", "type", "directory", "entry", "(", "name", "a", "node");
  const deep = Buffer.concat([encodeWords("nix-archive-1"), ...Array.from({ length: 100_000 }, () => level)]);
  const result = read(deep, [65_536]);
  expect(result).toContain(`at most ${MAX_NAR_DEPTH} levels`);
  // Refused at once: it did not read on to the end.
  expect(result.split("\n").length).toBeLessThan(MAX_NAR_DEPTH + 5);
  expect(encodedLength(1)).toBe(16);
});
