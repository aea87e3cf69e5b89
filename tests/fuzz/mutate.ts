/** Texts and bytes that are almost right: entries of the corpus, bent by a few seeded changes. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";

const CORPUS = join(import.meta.dir, "../fixtures/fuzz");

/** The files of one folder of the corpus. */
export function corpus(name: string): Uint8Array[] {
  const folder = join(CORPUS, name);
  const files = readdirSync(folder).sort();
  if (files.length === 0) throw new Error(`the corpus ${name} is empty`);
  return files.map((file) => new Uint8Array(readFileSync(join(folder, file))));
}

/** What parsers of other caches and of ours have stumbled over. */
const WORDS = [
  ...[
    "",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\0",
    ":",
    "=",
    ",",
    ";",
    '"',
    "'",
    "\\",
    "/",
    "..",
    "../",
    "//",
    "%00",
    "%zz",
  ],
  ...[
    "-1",
    "0",
    "-0",
    "00",
    "1e999",
    "NaN",
    "4294967296",
    "9007199254740991",
    "9007199254740993",
    "1".repeat(400),
  ],
  ...[
    "\x1b[31m",
    "\x1b]0;owned\x07",
    "\x7f",
    "\u009b31m",
    "\u202e",
    "\u2028",
    "\ufeff",
    "\ud800",
    "\u{e0041}",
  ],
  ...["é", "e\u0301", "İ", "ß", "中文", "💥", "\u00a0", "\u3000"],
  ...["null", "true", "{}", "[]", "[[]]", '{"__proto__":{"polluted":1}}', '"__proto__"', '"constructor"'],
  ...[
    "sha256:",
    "sha512:",
    `sha256:${"0".repeat(64)}`,
    "/nix/store/",
    "StorePath: ",
    "References: ",
    "Sig: a:b\n",
  ],
  ...[
    "a".repeat(300),
    "a".repeat(5000),
    " ".repeat(5000),
    ",".repeat(5000),
    "<".repeat(5000),
    "-".repeat(5000),
  ],
  ...["[".repeat(3000), '{"a":'.repeat(3000), "[".repeat(50_000)],
].map((word) => new TextEncoder().encode(word));

type Change = (bytes: Uint8Array) => Uint8Array;

/** A place as a share of the length, so that it stays meaningful after other changes. */
const place = fc.double({ min: 0, max: 1, noNaN: true });
const at = (bytes: Uint8Array, share: number): number =>
  Math.min(bytes.length, Math.floor(share * bytes.length));

function replaced(bytes: Uint8Array, start: number, end: number, by: Uint8Array): Uint8Array {
  return Buffer.concat([bytes.subarray(0, start), by, bytes.subarray(end)]);
}

function changes(others: readonly Uint8Array[]): fc.Arbitrary<Change> {
  const between = fc.tuple(place, place).map(([a, b]) => (a < b ? [a, b] : [b, a]) as [number, number]);
  return fc.oneof(
    fc.tuple(place, fc.nat(7)).map(
      ([share, bit]): Change =>
        (bytes) => {
          const flipped = Uint8Array.from(bytes);
          const index = Math.min(bytes.length - 1, at(bytes, share));
          if (index >= 0) flipped[index] = (flipped[index] ?? 0) ^ (1 << bit);
          return flipped;
        },
    ),
    fc.tuple(place, fc.nat(255)).map(
      ([share, value]): Change =>
        (bytes) => {
          const index = at(bytes, share);
          return replaced(bytes, index, Math.min(bytes.length, index + 1), Uint8Array.of(value));
        },
    ),
    place.map(
      (share): Change =>
        (bytes) =>
          bytes.subarray(0, at(bytes, share)),
    ),
    between.map(
      ([from, to]): Change =>
        (bytes) =>
          replaced(bytes, at(bytes, from), at(bytes, to), new Uint8Array(0)),
    ),
    fc.tuple(between, fc.integer({ min: 1, max: 20 })).map(
      ([[from, to], times]): Change =>
        (bytes) => {
          const piece = bytes.slice(at(bytes, from), at(bytes, to));
          const copies = Array.from(
            { length: Math.min(times, Math.ceil(200_000 / (piece.length + 1))) },
            () => piece,
          );
          return replaced(bytes, at(bytes, to), at(bytes, to), Buffer.concat(copies));
        },
    ),
    fc.tuple(place, fc.constantFrom(...WORDS)).map(
      ([share, word]): Change =>
        (bytes) =>
          replaced(bytes, at(bytes, share), at(bytes, share), word),
    ),
    fc.tuple(between, fc.constantFrom(...WORDS)).map(
      ([[from, to], word]): Change =>
        (bytes) =>
          // A short piece is more likely to be one value.
          replaced(bytes, at(bytes, from), Math.min(at(bytes, to), at(bytes, from) + 12), word),
    ),
    fc.tuple(place, between, fc.constantFrom(...others)).map(
      ([share, [from, to], other]): Change =>
        (bytes) =>
          replaced(bytes, at(bytes, share), bytes.length, other.subarray(at(other, from), at(other, to))),
    ),
  );
}

/** Half of what it gives is one change away from an entry of the corpus, the rest up to eight. */
export function mutated(entries: readonly Uint8Array[]): fc.Arbitrary<Uint8Array> {
  const change = changes(entries);
  return fc
    .tuple(
      fc.constantFrom(...entries),
      fc.oneof(
        fc.array(change, { minLength: 1, maxLength: 1 }),
        fc.array(change, { minLength: 2, maxLength: 8 }),
      ),
    )
    .map(([entry, list]) => list.reduce((bytes, apply) => apply(bytes), entry));
}

/** As text: as UTF-8 with replacement, or one character for each byte. */
export function mutatedText(entries: readonly Uint8Array[]): fc.Arbitrary<string> {
  return fc
    .tuple(mutated(entries), fc.boolean())
    .map(([bytes, utf8]) => Buffer.from(bytes).toString(utf8 ? "utf8" : "latin1"));
}
