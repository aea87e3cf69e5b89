import { expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { resultJson } from "../../../src/terminal/result-json.ts";

test("a stranger's text in a result is no command to GitHub Actions, and reads back as it was", () => {
  const value = { source: "##[set-output name=public-key]evil", nested: ["##[error]", "# #["] };
  const text = resultJson(value);
  expect(text).not.toContain("##[");
  expect(JSON.parse(text)).toEqual(value);
});

test("every command prints its results so", () => {
  const folder = join(import.meta.dir, "../../../src/commands");
  const printsRaw = readdirSync(folder).filter((file) =>
    /print\(\s*JSON\.stringify/.test(readFileSync(join(folder, file), "utf8")),
  );
  expect(printsRaw).toEqual([]);
});
