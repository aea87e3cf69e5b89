import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readExisting, replaceFile } from "../../../src/system/replace-file.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-replace-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

test("a file that is not there is made, with its folders", () => {
  const file = join(folder, "a", "b", "nix.conf");
  expect(readExisting(file)).toBeUndefined();
  replaceFile(file, undefined, Buffer.from("x"));
  expect(readFileSync(file, "utf8")).toBe("x");
  expect(statSync(file).mode & 0o777).toBe(0o644 & ~process.umask());
});

test("mode and links stay, and nothing else is left in the folder", () => {
  const [real, link] = [join(folder, "real"), join(folder, "link")];
  writeFileSync(real, "old");
  chmodSync(real, 0o640);
  symlinkSync("real", link);
  const before = readExisting(link);
  replaceFile(link, before, Buffer.from("new"));
  expect(readFileSync(real, "utf8")).toBe("new");
  expect(statSync(real).mode & 0o7777).toBe(0o640);
  expect(lstatSync(link).isSymbolicLink() && readlinkSync(link)).toBe("real");
  expect(readdirSync(folder).sort()).toEqual(["link", "real"]);
});

test("what somebody else has written meanwhile is not lost", () => {
  const file = join(folder, "nix.conf");
  writeFileSync(file, "old");
  const before = readExisting(file);
  writeFileSync(file, "of somebody else");
  expect(() => replaceFile(file, before, Buffer.from("new"))).toThrow("somebody else has changed it");
  expect(readFileSync(file, "utf8")).toBe("of somebody else");
  expect(readdirSync(folder)).toEqual(["nix.conf"]);
});

test.each([
  ["a folder", (file: string) => mkdirSync(file), "it is no file"],
  ["a link to nothing", (file: string) => symlinkSync("nothing", file), "ENOENT"],
  ["a file in a file", (file: string) => writeFileSync(file, ""), "ENOTDIR"],
])("%s is an error", (name, make, message) => {
  const file = join(folder, "x");
  make(file);
  expect(() => readExisting(name === "a file in a file" ? join(file, "y") : file)).toThrow(message);
});

test("where nothing can be written, what is there stays", () => {
  const file = join(folder, "nix.conf");
  writeFileSync(join(folder, "file"), "");
  expect(() => replaceFile(join(folder, "file", "nix.conf"), undefined, Buffer.from("x"))).toThrow(
    "cannot write",
  );
  expect(existsSync(file)).toBe(false);
});
