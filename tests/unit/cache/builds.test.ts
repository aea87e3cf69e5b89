/** Which of several lines for one path is shown: the same on every machine, and a signed one before one that is not. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { buildsOf, type KeyRing, Standing, shownLine, standingOf } from "../../../src/cache/builds.ts";
import { type EntryLine, encodeEntry, entryOf } from "../../../src/cache/entry.ts";
import { contentAddressStorePath, formatContentAddress } from "../../../src/nar/content-address.ts";
import type { NarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, publicKeyOf, type SecretKey } from "../../../src/nar/signing-key.ts";
import { baseName, testEntry } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";

const keyOf = (name: string, seed: number) => generateSecretKey(name, new Uint8Array(32).fill(seed));
const [MINE, OTHER, SAME_NAME] = [keyOf("mine-1", 1), keyOf("other-1", 2), keyOf("mine-1", 3)];
const ring = (given: readonly SecretKey[] = [], named: readonly SecretKey[] = []): KeyRing => ({
  given: given.map(publicKeyOf),
  named: named.map(publicKeyOf),
});
const NOBODY = ring();

interface Made {
  readonly content?: string;
  readonly added?: number;
  readonly keys?: readonly SecretKey[];
  /** Signatures as they stand. */
  readonly sigs?: readonly string[];
  readonly info?: Partial<NarInfo>;
}

/** A line for the path `p`. */
function made({ content = "p", added = 1, keys = [], sigs = [], info = {} }: Made): EntryLine {
  const entry = entryOf(testEntry("p", { content, added }).line);
  const described = { ...entry.info, ...info };
  const signed = keys.map((key) => signNarInfo(described, key));
  return encodeEntry({ ...entry, info: { ...described, sigs: [...signed, ...sigs] } });
}

const forged = (name: string) => `${name}:${Buffer.alloc(64, 9).toString("base64")}`;
const shown = (lines: readonly EntryLine[], keys: KeyRing) => {
  const all = permutations(lines).map((order) => shownLine(order, () => keys));
  for (const one of all) expect(one).toEqual(all[0] as EntryLine);
  return all[0] as EntryLine;
};

function permutations<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item, at) => permutations(items.toSpliced(at, 1)).map((rest) => [item, ...rest]));
}

describe("of two builds of a path", () => {
  const signed = made({ content: "A", added: 1, keys: [MINE] });
  const unsigned = made({ content: "B", added: 9 });

  test("the signed one is shown, though the other was made later", () => {
    for (const keys of [NOBODY, ring([MINE]), ring([], [MINE]), ring([OTHER], [MINE])])
      expect(shown([signed, unsigned], keys)).toEqual(signed);
  });

  test("a signature that is known to be wrong counts for nothing", () => {
    const lie = made({ content: "B", added: 9, sigs: [forged("mine-1")] });
    for (const keys of [ring([MINE]), ring([], [MINE]), ring([OTHER], [MINE, OTHER])])
      expect(shown([signed, lie], keys)).toEqual(signed);
    // Nobody can tell, so the later one is shown.
    expect(shown([signed, lie], NOBODY)).toEqual(lie);
    expect(standingOf(lie, ring([], [MINE]))).toBe(Standing.Unsigned);
  });

  test("one key under the name of another is told apart by its bytes", () => {
    const stranger = made({ content: "B", added: 9, keys: [SAME_NAME] });
    expect(shown([signed, stranger], ring([MINE], [SAME_NAME]))).toEqual(signed);
    expect(shown([signed, stranger], ring([], [MINE]))).toEqual(signed);
    // Records name both: each is good by one of them.
    for (const named of [
      [MINE, SAME_NAME],
      [SAME_NAME, MINE],
    ])
      expect(shown([signed, stranger], ring([], named))).toEqual(stranger);
  });

  test("the keys that the reader was given come before those that records name", () => {
    const later = made({ content: "B", added: 9, keys: [OTHER] });
    expect(shown([signed, later], ring([], [MINE, OTHER]))).toEqual(later);
    expect(shown([signed, later], ring([MINE], [MINE, OTHER]))).toEqual(signed);
    expect(shown([signed, later], ring([MINE, OTHER], []))).toEqual(later);
  });

  test("a key that is known comes before one that is not, and that before no signature", () => {
    const unknown = made({ content: "B", added: 9, keys: [OTHER] });
    expect(shown([signed, unknown], ring([], [MINE]))).toEqual(signed);
    expect(shown([unknown, made({ content: "C", added: 10 })], NOBODY)).toEqual(unknown);
  });

  test("where both are alike in that the later one is shown, and of the same second the greater", () => {
    for (const keys of [[], [MINE]]) {
      const [a, b] = [made({ content: "A", keys }), made({ content: "B", added: 2, keys })];
      expect(shown([a, b], ring([MINE]))).toEqual(b);
    }
    const [a, b] = [made({ content: "A" }), made({ content: "B" })];
    const greater = Buffer.compare(Buffer.from(a.narinfo), Buffer.from(b.narinfo)) > 0 ? a : b;
    expect(shown([a, b], NOBODY)).toEqual(greater);
  });

  test("what clients give up on, a known name before something that is none, is not shown", () => {
    const broken = made({ content: "B", added: 9, keys: [MINE], sigs: ["mine-1:AAAA"] });
    expect(shown([signed, broken], ring([MINE]))).toEqual(signed);
    expect(shown([signed, broken], ring([], [MINE]))).toEqual(signed);
    expect(standingOf(broken, ring([OTHER], []))).toBe(Standing.SignedByUnknown);
    // Another signature that is good does not help those who trust the name.
    const others = made({ content: "B", added: 9, keys: [OTHER], sigs: ["mine-1:AAAA"] });
    expect(standingOf(others, ring([MINE], [OTHER]))).toBe(Standing.Unsigned);
    expect(standingOf(others, ring([], [OTHER]))).toBe(Standing.SignedByNamed);
  });

  test("a reference more or less, or another size, is another build", () => {
    for (const info of [{ references: [baseName("q")] }, { narSize: 101 }]) {
      const later = made({ added: 9, info });
      const first = made({ keys: [MINE] });
      expect(buildsOf([first, later])).toHaveLength(2);
      expect(shown([first, later], ring([], [MINE]))).toEqual(first);
      // No signature on the one is given to the other.
      const signedLater = made({ added: 9, info, keys: [OTHER] });
      expect(buildsOf([first, signedLater])).toEqual([first, signedLater]);
      expect(shown([first, signedLater], ring([], [MINE, OTHER]))).toEqual(signedLater);
    }
  });

  test("a content address stands between a signature that is known and one that is not", () => {
    const address = { method: "nar", hash: { algorithm: "sha256", bytes: new Uint8Array(32) } } as const;
    const [ca, storePath] = [formatContentAddress(address), contentAddressStorePath("p", address)];
    const addressed = made({ info: { ca, storePath } });
    expect(standingOf(addressed, NOBODY)).toBe(Standing.ContentAddressed);
    expect(standingOf(made({ info: { ca } }), NOBODY)).toBe(Standing.Unsigned);
    const other = (keys: readonly SecretKey[]) => made({ content: "B", added: 9, keys, info: { storePath } });
    for (const keys of [[], [OTHER]])
      expect(shown([addressed, other(keys)], ring([MINE]))).toEqual(addressed);
    expect(shown([addressed, other([MINE])], ring([MINE]))).toEqual(other([MINE]));
    // Of the same build the address is good for every line.
    const without = made({ added: 9, keys: [OTHER], info: { storePath } });
    expect(entryOf(shown([addressed, without], NOBODY))).toMatchObject({ added: 9, info: { ca } });
  });
});

describe("of two lines of one build", () => {
  const first = made({ keys: [MINE], added: 1 });

  test("the later one is shown, with the signatures of both", () => {
    const later = made({ keys: [OTHER], added: 5 });
    const both = shown([first, later], NOBODY);
    expect(both.added).toBe(5);
    const sigs = [first, later].flatMap((line) => entryOf(line).info.sigs).sort();
    expect(entryOf(both).info.sigs).toEqual(sigs);
  });

  test("a later one without a signature is not shown", () => {
    expect(shown([first, made({ added: 9 })], NOBODY)).toEqual(first);
  });

  test("one that has all signatures is shown as it stands", () => {
    const later = made({ keys: [OTHER, MINE], added: 9 });
    expect(shown([first, later], NOBODY)).toEqual(later);
  });

  test("what is no signature is not gathered, and goes", () => {
    const broken = made({ added: 9, keys: [OTHER], sigs: ["mine-1:AAAA", "x:"] });
    const sigs = [first, made({ keys: [OTHER] })].flatMap((line) => entryOf(line).info.sigs).sort();
    expect(entryOf(shown([first, broken], NOBODY))).toMatchObject({ added: 9, info: { sigs } });
  });

  test("too many signatures stay apart: a narinfo has at most 1 MiB", () => {
    const many = (from: number) =>
      made({ added: from, sigs: Array.from({ length: 200 }, (_, i) => forged(`k-${from + i}`)) });
    const lines = [many(1000), many(2000), first];
    expect(buildsOf(lines)).toHaveLength(3);
    expect(shown(lines, ring([MINE]))).toEqual(first);
  });

  test("two that are alike but for their parts have an order", () => {
    const entry = entryOf(first);
    const [part] = entry.parts as [(typeof entry.parts)[0]];
    const packed = encodeEntry({ ...entry, parts: [{ ...part, offset: 7, size: part.size + 7 }] });
    expect(packed.narinfo).toBe(first.narinfo);
    const greater = Buffer.compare(Buffer.from(first.rest), Buffer.from(packed.rest)) > 0 ? first : packed;
    expect(shown([first, packed], NOBODY)).toEqual(greater);
    expect(buildsOf([first, packed])).toEqual([greater]);
  });
});

const anyLine: fc.Arbitrary<EntryLine> = fc
  .record({
    content: fc.constantFrom("A", "B", "C"),
    added: fc.integer({ min: 1, max: 3 }),
    keys: fc.subarray([MINE, OTHER, SAME_NAME]),
    sigs: fc.subarray([forged("mine-1"), forged("none-1"), "mine-1:AAAA"]),
    info: fc.constantFrom<Partial<NarInfo>[]>(
      {},
      { references: [baseName("q")] },
      { deriver: baseName("d.drv") },
    ),
    swapped: fc.boolean(),
  })
  .map(({ swapped, ...of }) => made(swapped ? { ...of, keys: of.keys.toReversed() } : of));
const anyRing = fc
  .tuple(fc.subarray([MINE, OTHER]), fc.subarray([MINE, OTHER, SAME_NAME]))
  .map(([given, named]) => ring(given, named));

test("whatever was put together before, in whatever order, everybody is shown the same", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(anyLine, fc.nat(3)), { minLength: 1, maxLength: 7 }),
      fc.array(fc.nat(3), { maxLength: 3 }),
      anyRing,
      (placed, folds, keys) => {
        const lines = placed.map(([line]) => line);
        const expected = shownLine(lines, () => keys);
        const layers = [0, 1, 2, 3].map((layer) =>
          placed.flatMap(([line, at]) => (at === layer ? [line] : [])),
        );
        // Each fold puts what one layer has on another one, as the layers of a root are merged.
        for (const [round, from] of folds.entries()) {
          const to = (from + round + 1) % layers.length;
          layers[to] = buildsOf([...(layers[to] ?? []), ...(layers[from] ?? [])]);
          if (to !== from && round % 2 === 0) layers[from] = [];
        }
        expect(shownLine(layers.flat(), () => keys)).toEqual(expected as EntryLine);
        expect(shownLine(layers.flat().reverse(), () => keys)).toEqual(expected as EntryLine);
      },
    ),
    propertyParameters(),
  );
});
