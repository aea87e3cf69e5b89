import { expect, test } from "bun:test";
import { splitPackageName } from "../../../src/nar/package-name.ts";

test.each([
  ["firefox-128.0", "firefox", "128.0"],
  ["firefox-128.0-man", "firefox", "128.0"],
  ["glibc-2.39-52", "glibc", "2.39-52"],
  ["glibc-2.39-52-bin", "glibc", "2.39-52"],
  ["gcc-13.2.0-lib32", "gcc", "13.2.0"],
  ["python3.12-numpy-2.0.1", "python3.12-numpy", "2.0.1"],
  ["unit-dbus.service", "unit-dbus.service", ""],
  // Nix cannot tell a last word from an output either.
  ["etc-hostname", "etc", ""],
  ["zig-0.12.0-unstable", "zig", "0.12.0"],
  ["source", "source", ""],
  ["a-_b", "a", "_b"],
  ["a--b", "a-", ""],
  ["a-", "a-", ""],
  ["-1.0", "", "1.0"],
])("%s is %s, version %j", (full, name, version) => {
  expect(splitPackageName(full)).toEqual({ name, version });
});
