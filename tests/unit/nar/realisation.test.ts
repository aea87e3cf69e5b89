import { describe, expect, test } from "bun:test";
import { ed25519 } from "@noble/curves/ed25519.js";
import {
  formatRealisation,
  mergeRealisation,
  type Realisation,
  realisationPath,
  signRealisation,
} from "../../../src/nar/realisation.ts";
import { parseSignature } from "../../../src/nar/signature.ts";
import { generateSecretKey } from "../../../src/nar/signing-key.ts";

const KEY = generateSecretKey("test-1", new Uint8Array(32).fill(7));
const DEPENDENCY = `sha256:${"25".repeat(32)}!out`;
const TOP: Realisation = {
  id: `sha256:${"5a".repeat(32)}!out`,
  outPath: "azz0506m91wxpkwp0ij0bqm7l7ckax63-top",
  signatures: ["z-1:BBBB", "a-1:AAAA"],
  dependentRealisations: { [DEPENDENCY]: "f1c9cmlazgfryhcm0bcwpmy4ibvlix5s-dep" },
};
/** What a signature covers, spelled out. */
const FIELDS = `"dependentRealisations":{"${DEPENDENCY}":"f1c9cmlazgfryhcm0bcwpmy4ibvlix5s-dep"},"id":"${TOP.id}","outPath":"${TOP.outPath}"`;

describe("a realisation", () => {
  test("has its dependent realisations in ascending order", () => {
    const dependentRealisations = { "sha256:b!out": "2-b", "sha256:a!out": "1-a", "sha256:a!dev": "0-a" };
    expect(formatRealisation({ ...TOP, dependentRealisations })).toStartWith(
      '{"dependentRealisations":{"sha256:a!dev":"0-a","sha256:a!out":"1-a","sha256:b!out":"2-b"},"id"',
    );
  });

  test("has the bytes that Nix 2.8 writes", () => {
    expect(formatRealisation(TOP)).toBe(`{${FIELDS},"signatures":["a-1:AAAA","z-1:BBBB"]}`);
    expect(realisationPath(TOP)).toBe(`realisations/${TOP.id}.doi`);
  });

  test("is signed over its JSON without signatures", () => {
    const signature = signRealisation(TOP, KEY).signatures.at(-1) as string;
    const { name, bytes } = parseSignature(signature);
    expect(name).toBe("test-1");
    expect(ed25519.verify(bytes, new TextEncoder().encode(`{${FIELDS}}`), KEY.publicBytes)).toBe(true);
  });
});

describe("a realisation that the cache has already", () => {
  const text = (more: Partial<Realisation>) => formatRealisation({ ...TOP, ...more });
  test.each<[string, string | undefined, string]>([
    ["is written where there is none", undefined, text({})],
    ["replaces what is no JSON", "{", text({})],
    ["replaces one of another path", text({ outPath: "0123-other" }), text({})],
    [
      "gains signatures",
      text({ signatures: ["b-1:CCCC"] }),
      text({ signatures: ["a-1:AAAA", "b-1:CCCC", "z-1:BBBB"] }),
    ],
    ["stays as it is when nothing is new", text({}), text({})],
    [
      "stays when it says other things of the same path: two publishers would go on replacing each other's",
      text({ dependentRealisations: {}, signatures: ["b-1:CCCC"] }),
      text({ dependentRealisations: {}, signatures: ["b-1:CCCC"] }),
    ],
  ])("%s", (_, known, expected) => {
    expect(mergeRealisation(TOP, known)).toBe(expected);
  });
});
