/** `docs/durability.md` names tests as proofs: each must be there under that name. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const ROOT = join(import.meta.dir, "../..");
const text = readFileSync(join(ROOT, "docs/durability.md"), "utf8");

/** Rows such as "| … | `unit/x.test.ts` | name of a test |". */
const proofs = [...text.matchAll(/^\|.*?`([a-z][\w/-]+\.test\.ts)` \| ([^|]+?) \|$/gm)].map(
  ([, file = "", name = ""]) => [file, name] as const,
);

test("the document names proofs", () => {
  expect(proofs.length).toBeGreaterThan(50);
});

test.each(proofs)("%s: %s", (file, name) => {
  const source = readFileSync(join(ROOT, "tests", file), "utf8");
  // "…" stands for what a name counts; a test's name in the source may hold escaped quotes.
  for (const piece of name.split("…").map((piece) => piece.trim().replaceAll("`", ""))) {
    expect(source.replaceAll("\\", "").replaceAll("`", "")).toContain(piece);
  }
});

test("every source file that it names is there", () => {
  for (const [, file = ""] of text.matchAll(/`(src\/[\w/.-]+\.ts)`/g)) {
    expect([file, existsSync(join(ROOT, file))]).toEqual([file, true]);
  }
});
