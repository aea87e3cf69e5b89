import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { addLines, type ConfLines, removeLines } from "../../../src/setup/nix-conf.ts";
import { propertyParameters } from "../../support/seed.ts";

const KEY = `me-1:${"A".repeat(43)}=`;
const OTHER_KEY = `me-2:${"B".repeat(43)}=`;
const ONE: ConfLines = { cache: "ghcr.io/a/b/nix-cache", url: "http://127.0.0.1:37515", keys: [KEY] };
const TWO: ConfLines = { cache: "/srv/zwei ü", url: "http://127.0.0.1:37515", keys: [OTHER_KEY] };

const block = ({ keys }: ConfLines, state = "") => `# nixcache ghcr.io/a/b/nix-cache: from here${state}
extra-substituters = http://127.0.0.1:37515
extra-trusted-public-keys = ${keys.join(" ")}
fallback = true
# nixcache ghcr.io/a/b/nix-cache: to here
`;

describe("adding", () => {
  test.each<[string, string | undefined, string]>([
    ["to no file", undefined, block(ONE, "; the file is new")],
    ["to an empty file", "", block(ONE)],
    ["at the end", "# mine\n!include x\n", `# mine\n!include x\n${block(ONE)}`],
    ["behind a line without an end", "cores = 1", `cores = 1\n${block(ONE, "; the line above had no end")}`],
    [
      "anew, in the same place, when the keys are others",
      `a = b\n${block({ ...ONE, keys: [OTHER_KEY] })}c = d\n`,
      `a = b\n${block(ONE)}c = d\n`,
    ],
    [
      "not where a person says it already",
      `substituters = https://x http://127.0.0.1:37515 # ours\nextra-trusted-public-keys=1\nextra-trusted-public-keys = x:1 ${KEY}\n`,
      `substituters = https://x http://127.0.0.1:37515 # ours\nextra-trusted-public-keys=1\nextra-trusted-public-keys = x:1 ${KEY}\n`,
    ],
    [
      "where a comment says it",
      `# extra-substituters = http://127.0.0.1:37515\n`,
      `# extra-substituters = http://127.0.0.1:37515\n${block(ONE)}`,
    ],
  ])("%s", (_, before, after) => {
    expect(addLines(before, ONE)).toBe(after);
  });

  test("although another cache has the same lines, which go with it", () => {
    expect(addLines(block(ONE), { ...ONE, cache: "other" })).toContain("# nixcache other: from here");
  });

  test.each<[string, string, string, boolean, boolean]>([
    ["fallback alone, for serve on this machine", "", "http://127.0.0.1:37515", true, false],
    ["for a name of this machine", "", "http://localhost:1", true, false],
    ["for a machine that may be switched off", "", "http://cache.lan:37515", true, true],
    ["what a person has said of it stays", "fallback = false\n", "http://cache.lan:37515", false, true],
    ["of both", " connect-timeout = 2\nfallback = true # mine\n", "http://cache.lan:37515", false, false],
    ["not in a comment", "# fallback = false\n", "http://127.0.0.1:1", true, false],
    ["not of another cache's lines", block(ONE), "http://127.0.0.1:1", true, false],
  ])("what lets Nix go on without the server: %s", (_, before, url, fallback, timeout) => {
    const wanted = { ...ONE, cache: "other", url };
    const added = addLines(before, wanted).slice(before.length);
    expect([added.includes("\nfallback = true\n"), added.includes("\nconnect-timeout = 5\n")]).toEqual([
      fallback,
      timeout,
    ]);
    expect(removeLines(addLines(before, wanted), wanted).text).toBe(before);
    expect(addLines(addLines(before, wanted), wanted)).toBe(addLines(before, wanted));
  });

  test("without keys there is no line for them", () => {
    expect(addLines("", { ...ONE, keys: [] })).not.toContain("trusted-public-keys");
  });
});

describe("removing", () => {
  test.each<[string, string, string | undefined, number[]]>([
    ["from where there is nothing", "a = b\n", "a = b\n", []],
    ["a new file as a whole", block(ONE, "; the file is new"), undefined, []],
    ["a new file, but not what has come into it", `${block(ONE, "; the file is new")}a = b\n`, "a = b\n", []],
    ["a block from the middle", `a = b\n${block(ONE)}c = d`, "a = b\nc = d", []],
    ["with line ends of Windows", `a = b\r\n${block(ONE).replaceAll("\n", "\r\n")}`, "a = b\r\n", []],
    [
      "lines that are exactly ours, written by hand",
      `a = b\nextra-substituters = http://127.0.0.1:37515\nextra-trusted-public-keys = ${KEY}\nc = d\n`,
      "a = b\nc = d\n",
      [],
    ],
    [
      "not what a person has said of the same",
      `fallback = true\n${block(ONE).replace("fallback = true\n", "")}`,
      "fallback = true\n",
      [],
    ],
    [
      "not what stands beside others, which is told",
      `extra-substituters = https://x http://127.0.0.1:37515\n# ${KEY}\ntrusted-public-keys = ${KEY} x:1\n`,
      `extra-substituters = https://x http://127.0.0.1:37515\n# ${KEY}\ntrusted-public-keys = ${KEY} x:1\n`,
      [1, 3],
    ],
  ])("%s", (_, before, text, left) => {
    expect(removeLines(before, ONE)).toEqual({ text, left });
  });

  test("the same lines of another cache stay", () => {
    const both = addLines(addLines("", TWO), ONE);
    expect(removeLines(both, ONE)).toEqual({ text: addLines("", TWO), left: [] });
  });
});

test.each([
  ["# nixcache ghcr.io/a/b/nix-cache: from here\nextra-substituters = x\n", 1],
  [
    `${block(TWO)}\n# nixcache ghcr.io/a/b/nix-cache: from here; the file is new\n`.slice(block(TWO).length),
    2,
  ],
])("%j has no end", (text, line) => {
  const message = `nix.conf line ${line}: the lines of ghcr.io/a/b/nix-cache begin there`;
  expect(() => addLines(text, ONE)).toThrow(message);
  expect(() => removeLines(text, ONE)).toThrow(message);
});

test("whatever was there comes back byte by byte, for any caches and any order", () => {
  const line = fc.oneof(
    fc.constantFrom(
      "",
      "cores = 1",
      "# ü".normalize(),
      "!include other.conf",
      "fallback = false",
      "fallback = true",
      "extra-substituters = https://x\r",
    ),
    fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((byte) => String.fromCharCode(byte)) }),
  );
  const text = fc
    .tuple(fc.array(line), fc.boolean())
    .map(([lines, ends]) => lines.join("\n") + (ends ? "\n" : ""));
  const caches = fc.uniqueArray(fc.nat(5), { minLength: 1 });
  fc.assert(
    fc.property(
      fc.option(text, { nil: undefined }),
      caches,
      fc.infiniteStream(fc.nat()),
      (before, added, chance) => {
        const of = (index: number): ConfLines => ({ ...ONE, cache: `cache-${index}/${"ü ".repeat(index)}x` });
        let now = before;
        for (const index of added) {
          const next: string = addLines(now, of(index));
          expect(addLines(next, of(index))).toBe(next);
          now = next;
        }
        const left = [...added];
        while (left.length > 0) {
          const [index] = left.splice((chance.next().value ?? 0) % left.length, 1);
          now = removeLines(now ?? "", of(index ?? 0)).text;
        }
        expect(now).toBe(before);
      },
    ),
    propertyParameters(),
  );
});
