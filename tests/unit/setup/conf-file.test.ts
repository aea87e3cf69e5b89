import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addToConf, removeFromConf } from "../../../src/setup/conf-file.ts";

const LINES = { cache: "a", url: "http://127.0.0.1:37515", keys: [] };

let folder: string;
beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "nixcache-test-conf-")));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("bytes that are no text of any kind stay as they are", () => {
  const file = join(folder, "nix.conf");
  const bytes = Buffer.from([0x23, 0xff, 0xc3, 0x28, 0x0a, 0x00, 0x80]);
  writeFileSync(file, bytes);
  expect(addToConf(file, LINES)).toEqual(["extra-substituters = http://127.0.0.1:37515", "fallback = true"]);
  const { ino } = statSync(file);
  expect(addToConf(file, LINES)).toBeUndefined();
  expect(statSync(file).ino).toBe(ino);
  expect(removeFromConf(file, LINES)).toEqual({ changed: true, left: [] });
  expect(readFileSync(file)).toEqual(bytes);
});

test("a file that was made goes again, one that never was is no error", () => {
  const file = join(folder, "new", "nix.conf");
  expect(removeFromConf(file, LINES).changed).toBe(false);
  addToConf(file, LINES);
  removeFromConf(file, LINES);
  expect(existsSync(file)).toBe(false);
});

test("a generated file is refused, through any link", () => {
  const store = join(folder, "store");
  mkdirSync(store);
  writeFileSync(join(store, "hash-nix.conf"), "a = b\n");
  symlinkSync(join(store, "hash-nix.conf"), join(folder, "static"));
  symlinkSync("static", join(folder, "nix.conf"));
  const file = join(folder, "nix.conf");
  expect(() => addToConf(file, LINES, store)).toThrow(
    `${file} is ${join(store, "hash-nix.conf")}, which is generated and cannot be changed`,
  );
  expect(readFileSync(file, "utf8")).toBe("a = b\n");
  // Nothing to take out is no reason to refuse.
  expect(removeFromConf(file, LINES, store).changed).toBe(false);
});
