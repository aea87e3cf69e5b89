/** Upstreams that claim to have what they have not. */
import { describe, expect, test } from "bun:test";
import { formatNarInfo, type NarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, type PublicKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { storeHashOf } from "../../../src/nar/store-path.ts";
import { select } from "../../../src/publish/select.ts";
import { elsewhereIn } from "../../../src/receive/elsewhere.ts";
import { narInfoOf, pathInfo, pathOf } from "../../support/publish.ts";
import { memoryUpstream } from "../../support/upstream-double.ts";

const KEY = generateSecretKey("up-1", new Uint8Array(32).fill(1));
const OTHER = generateSecretKey("up-1", new Uint8Array(32).fill(2));
const PATH = { name: "p", references: ["q"] };
const TRUE = narInfoOf(PATH);
const signed = (info: NarInfo, key = KEY): NarInfo => ({ ...info, sigs: [signNarInfo(info, key)] });

/** What of the path is left out for an upstream that says this, and what is warned of. */
async function leftOut(said: NarInfo, keys: readonly PublicKey[]) {
  const warnings: string[] = [];
  const upstream = { ...memoryUpstream("https://upstream", async () => formatNarInfo(said)), keys };
  const { upstream: out } = await select([pathInfo(PATH)], {
    ...{ known: () => undefined, isSigned: () => false, upstreams: [upstream] },
    warn: (message) => warnings.push(message),
  });
  return { count: out.size, warnings };
}

const LIES: readonly (readonly [string, NarInfo])[] = [
  ["another NAR hash", { ...TRUE, narHash: narInfoOf({ name: "other" }).narHash }],
  ["another NAR size", { ...TRUE, narSize: TRUE.narSize + 1 }],
  ["a reference less", { ...TRUE, references: [] }],
  ["a reference more", { ...TRUE, references: [...TRUE.references, pathOf("r").slice(11)].sort() }],
  ["another name", { ...TRUE, storePath: `${TRUE.storePath}-2` }],
];

describe("S13: publish leaves nothing out for a claim of", () => {
  test.each(LIES)("%s", async (_, said) => {
    for (const keys of [[], [publicKeyOf(KEY)]]) {
      for (const info of [said, signed(said)]) {
        const { count, warnings } = await leftOut(info, keys);
        expect(count).toBe(0);
        expect(warnings).toEqual([
          expect.stringMatching(/^upstream https:\/\/upstream: .* does not count as there: /),
        ]);
      }
    }
  });

  test.each<[string, NarInfo, number]>([
    ["the truth, by its key", signed(TRUE), 1],
    ["the truth without a signature", TRUE, 0],
    ["the truth by another key of that name", signed(TRUE, OTHER), 0],
    [
      "the truth with a signature of something else",
      { ...TRUE, sigs: signed(narInfoOf({ name: "q" })).sigs },
      0,
    ],
  ])("%s, where its key is known", async (_, said, count) => {
    expect((await leftOut(said, [publicKeyOf(KEY)])).count).toBe(count);
  });

  test("but for the truth, where its key is not known", async () => {
    expect(await leftOut(TRUE, [])).toEqual({ count: 1, warnings: [] });
  });
});

test("S13: an upload whose references only a claim has is not committed", async () => {
  const hash = storeHashOf(TRUE.storePath);
  const name = TRUE.storePath.slice("/nix/store/".length);
  const signal = new AbortController().signal;
  const has = (said: NarInfo, keys: readonly PublicKey[]) =>
    elsewhereIn([], { narinfo: () => formatNarInfo(said) }, keys, signal)(hash, name);
  const keys = [publicKeyOf(KEY)];
  expect(await has(signed(TRUE), keys)).toBe(true);
  expect(await has(TRUE, [])).toBe(true);
  expect(await has(TRUE, keys)).toBe(false);
  expect(await has(signed(TRUE, OTHER), keys)).toBe(false);
  expect(await has(signed({ ...TRUE, storePath: `${TRUE.storePath}-2` }), keys)).toBe(false);
});
