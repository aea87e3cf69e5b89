import { describe, expect, test } from "bun:test";
import type { RunCommand } from "../../../src/nix/command.ts";
import { readConfiguration, readVersion } from "../../../src/nix/configuration.ts";
import { configuredStore, parseStoreSetting } from "../../../src/nix/store-setting.ts";
import { matches } from "../../../src/nix/trust.ts";

const setting = (value: unknown) => ({ value, description: "" });
const JSON_TEXT = JSON.stringify({
  substituters: setting(["https://cache.nixos.org/"]),
  "trusted-public-keys": setting(["k:1"]),
  "require-sigs": setting(true),
  "trusted-users": setting(["root", "@wheel"]),
  "trusted-substituters": setting([]),
});

/** A Nix that knows some commands, by their words, and says the same to all others. */
function nix(known: readonly string[], refusal: string) {
  const asked: string[] = [];
  const run: RunCommand = async (argv) => {
    const words = argv.slice(3, -1).join(" ");
    asked.push(words);
    if (known.includes(words)) return { exitCode: 0, stdout: JSON_TEXT, stderr: "warning: x" };
    return { exitCode: 1, stdout: "", stderr: refusal };
  };
  return { run, asked };
}

describe("readConfiguration", () => {
  const old = "error: 'config' is not a recognised command\nTry 'nix --help' for more information.\n";

  test.each([
    [["config show", "show-config"], ["config show"]],
    [["show-config"], ["config show", "show-config"]],
  ])("of a Nix that knows %j", async (known, expected) => {
    const { run, asked } = nix(known, old);
    const found = await readConfiguration(run, {}, { of: "user" });
    expect(asked).toEqual(expected);
    expect(found).toEqual({
      substituters: ["https://cache.nixos.org/"],
      trustedPublicKeys: ["k:1"],
      requireSigs: true,
      trustedUsers: ["root", "@wheel"],
      trustedSubstituters: [],
      positiveTtlMs: 30 * 24 * 3_600_000,
      negativeTtlMs: 3_600_000,
    });
  });

  test("what Nix cannot read is told in its own words", async () => {
    const { run, asked } = nix(
      [],
      "warning: y\nerror: illegal configuration line 'x' in '/etc/nix/nix.conf'\n",
    );
    await expect(readConfiguration(run, {}, { of: "user" })).rejects.toThrow(
      "illegal configuration line 'x'",
    );
    expect(asked.length).toBe(1);
  });

  test("the machine's is asked for without the user's own files", async () => {
    let seen: unknown;
    const run: RunCommand = async (_, env) => {
      seen = env;
      return { exitCode: 0, stdout: JSON_TEXT, stderr: "" };
    };
    await readConfiguration(run, { HOME: "/h", NIX_CONFIG: "x = y" }, { of: "machine" });
    expect(seen).toEqual({ HOME: "/h", NIX_CONFIG: "", NIX_USER_CONF_FILES: "" });
  });
});

test.each([
  ["nonsense", "expected JSON"],
  ["null", "got null, expected an object"],
  ["{}", "substituters = undefined, expected a list of texts"],
  [JSON_TEXT.replace('["k:1"]', "[1]"), "trusted-public-keys = [1]"],
])("%s is refused", async (stdout, message) => {
  const run: RunCommand = async () => ({ exitCode: 0, stdout, stderr: "" });
  await expect(readConfiguration(run, {}, { of: "user" })).rejects.toThrow(message);
});

describe("the store that Nix uses", () => {
  test.each<[string, object, string | undefined]>([
    ["what nix.conf says", { store: { value: "/r", defaultValue: "auto" } }, "/r"],
    ["what NIX_REMOTE says already", { store: { value: "/r", defaultValue: "/r" } }, undefined],
    ["the usual one, whatever NIX_REMOTE says", { store: { value: "auto", defaultValue: "/r" } }, "auto"],
    ["nothing", {}, undefined],
  ])("%s", (_, settings, expected) => {
    expect(parseStoreSetting(settings)).toBe(expected);
  });

  test("is not asked for where there is no Nix", async () => {
    const run: RunCommand = async () => {
      throw new Error("asked");
    };
    expect(await configuredStore(run, { PATH: "/nowhere" })).toBeUndefined();
  });
});

test.each([
  ["nix (Nix) 2.8.0", "2.8.0"],
  ["nix (Lix, like Nix) 2.91.1", "2.91.1"],
  ["nix (Nix) 2.30.0pre20250101_abc", "2.30.0pre20250101_abc"],
  ["something else", undefined],
])("the version in %j", async (stdout, expected) => {
  expect(await readVersion(async () => ({ exitCode: 0, stdout, stderr: "" }), {})).toBe(expected);
});

test.each([
  [["root"], false],
  [["root", "me"], true],
  [["*"], true],
  [["@wheel"], true],
  [["@other", "@"], false],
  [["wheel"], false],
])("trusted-users %j", (users, expected) => {
  expect(matches(users, "me", ["users", "wheel"])).toBe(expected);
});
