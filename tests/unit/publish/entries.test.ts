/** The lines of a generation: what a line gains, and that the one that gained it is the one that is shown. */
import { describe, expect, test } from "bun:test";
import { type KeyRing, shownLine } from "../../../src/cache/builds.ts";
import { type EntryLine, encodeEntry, entryOf } from "../../../src/cache/entry.ts";
import type { Realisation } from "../../../src/nar/realisation.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { newLine, restatedLine } from "../../../src/publish/entries.ts";
import { testEntry } from "../../support/protocol.ts";
import { pathInfo } from "../../support/publish.ts";

const [FIRST, SECOND] = ["a-1", "a-2"].map((name, i) =>
  generateSecretKey(name, new Uint8Array(32).fill(i)),
) as [ReturnType<typeof generateSecretKey>, ReturnType<typeof generateSecretKey>];
const NOBODY: KeyRing = { given: [], named: [] };
const MADE = 1_700_000_000;
const line = (more: Parameters<typeof testEntry>[1] = {}) =>
  testEntry("p", { added: MADE, keys: [FIRST], ...more }).line;
const shown = (...lines: EntryLine[]) => shownLine(lines, () => NOBODY);
const realisation = (id: string): Realisation => ({
  id: `sha256:${id.padStart(64, "0")}!out`,
  outPath: entryOf(line()).info.storePath.slice(11),
  signatures: [],
  dependentRealisations: {},
});

/** Within one second, with a clock that is slow, and with one that is right. */
const CLOCKS = [MADE, MADE - 3600, MADE + 3600] as const;

describe("a line that is restated", () => {
  test("is the same, byte for byte, where it gains nothing", () => {
    const before = line();
    for (const key of [undefined, FIRST]) expect(restatedLine(before, [], key, MADE + 9)).toBe(before);
  });

  test.each(CLOCKS)("with a signature more is made after the one that it replaces, at %d", (now) => {
    const before = line();
    const after = restatedLine(before, [], SECOND, now);
    expect(after.added).toBe(Math.max(now, MADE + 1));
    expect(entryOf(after).info.sigs).toHaveLength(2);
    for (const key of [FIRST, SECOND])
      expect(verifyNarInfo(entryOf(after).info, [publicKeyOf(key)])).toBe(true);
    for (const order of [
      [before, after],
      [after, before],
    ])
      expect(shown(...order)).toEqual(after);
  });

  test.each(CLOCKS)("with a realisation more is the one that is shown, at %d", (now) => {
    // Whichever of the two is greater as text.
    for (const id of ["1", "2", "3", "4"]) {
      const before = restatedLine(line(), [realisation("5")], FIRST, MADE);
      const after = restatedLine(before, [realisation(id)], FIRST, now);
      expect(after.added).toBeGreaterThan(before.added);
      expect(Object.keys(entryOf(after).attached ?? {})).toHaveLength(2);
      expect(shown(before, after)).toEqual(after);
      expect(shown(after, before)).toEqual(after);
    }
  });

  test("keeps the signatures that it has, and drops what is none: clients give up for it", () => {
    const before = line({ sigs: ["other-1:AAAA", `other-2:${Buffer.alloc(64).toString("base64")}`] });
    const names = entryOf(restatedLine(before, [], SECOND, MADE)).info.sigs.map((sig) =>
      sig.slice(0, sig.indexOf(":")),
    );
    expect(names).toEqual(["a-1", "other-2", "a-2"]);
  });
});

describe("a new line", () => {
  const path = pathInfo({ name: "p" });
  const { parts, info } = entryOf(line());
  const file = {
    fileHash: info.fileHash ?? "",
    fileSize: info.fileSize ?? 0,
    parts,
    listing: undefined,
    logs: new Map(),
  };

  test("is made now, or after the one of another build in whose place it is", () => {
    const made = (now: number, replaced?: EntryLine) => newLine(path, file, [], FIRST, now, replaced).added;
    expect(made(MADE - 50)).toBe(MADE - 50);
    for (const now of CLOCKS) expect(made(now, line())).toBe(Math.max(now, MADE + 1));
    const replaced = encodeEntry({ ...entryOf(line()), added: MADE });
    expect(shown(replaced, newLine(path, file, [], FIRST, MADE, replaced))?.added).toBe(MADE + 1);
  });

  test("has Nix's own signatures beside ours", () => {
    const sigs = [`cache-1:${Buffer.alloc(64, 1).toString("base64")}`];
    expect(entryOf(newLine({ ...path, sigs }, file, [], FIRST, MADE)).info.sigs).toEqual([
      ...sigs,
      expect.stringMatching(/^a-1:/),
    ]);
    expect(entryOf(newLine({ ...path, sigs }, file, [], undefined, MADE)).info.sigs).toEqual(sigs);
  });
});
