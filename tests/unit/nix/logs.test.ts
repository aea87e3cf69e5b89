import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bunzip } from "../../../src/nix/bunzip.ts";
import { MAX_LOG_BYTES, readBuildLog } from "../../../src/nix/logs.ts";

const DERIVATION = "0123456789abcdfghijklmnpqrsvwxyz-a.drv";
const TEXT = "building\nlog of a build\n".repeat(3);
/** TEXT, and 17 MiB of zeros, as bzip2 1.0.8 packs them. */
const PACKED = Buffer.from(
  "QlpoOTFBWSZTWQ+d1Z4AAAvRgAAQQAA1pYIAIAAxA0DQG9VIeSNqeLWp0qKexxxpkfMi2m22R+LuSKcKEgHzurPA",
  "base64",
);
const PACKED_ZEROS = Buffer.from(
  "QlpoOTFBWSZTWdCQ7vEAiIjAAMACAAggADDMBSmmhCENhEIQ8XckU4UJDQkO7xA=",
  "base64",
);

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(name: string, content: string | Uint8Array): string {
  const file = join(folder, "drvs", name);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, content);
  return file;
}

const read = () => {
  const log = readBuildLog(folder, DERIVATION);
  return log && Buffer.from(log).toString();
};

describe("a build log", () => {
  const [split, flat] = [`01/${DERIVATION.slice(2)}`, DERIVATION];
  test.each<[string, Record<string, string | Uint8Array>, string | undefined]>([
    ["is none where there is none", {}, undefined],
    ["is unpacked", { [`${split}.bz2`]: PACKED }, TEXT],
    ["may be plain", { [split]: "plain" }, "plain"],
    ["may be in the folder itself, as Nix 1 had it", { [`${flat}.bz2`]: PACKED }, TEXT],
    ["may be empty", { [split]: "" }, ""],
    ["is that in the folder of two characters first", { [split]: "new", [flat]: "old" }, "new"],
    ["is not read when it would unpack to too much", { [`${split}.bz2`]: PACKED_ZEROS }, undefined],
  ])("%s", async (_, files, expected) => {
    for (const [name, content] of Object.entries(files)) write(name, content);
    expect(read()).toBe(expected as string);
  });

  test("is not read when it is too long", async () => {
    truncateSync(write(split, ""), MAX_LOG_BYTES + 1);
    expect(read()).toBeUndefined();
  });

  test.each<[string, () => Uint8Array, string]>([
    ["is cut short", () => PACKED.subarray(0, -4), "it is cut short"],
    ["is no bzip2", () => Buffer.from("no bzip2"), "Not bzip data"],
    [
      "is damaged",
      () => {
        const damaged = Uint8Array.from(PACKED);
        damaged[40] = (damaged[40] as number) ^ 1;
        return damaged;
      },
      "Data error",
    ],
  ])("that %s is an error that names it", (_, bytes, reason) => {
    const file = write(`${split}.bz2`, bytes());
    expect(read).toThrow(`the build log ${file} cannot be read: ${reason}`);
  });
});

test("bzip2 streams one after another are one content, as of `cat a.bz2 b.bz2`", () => {
  expect(Buffer.from(bunzip(Buffer.concat([PACKED, PACKED]), 1000) ?? []).toString()).toBe(TEXT + TEXT);
});

test("a content of the very size that is allowed is unpacked", () => {
  expect(bunzip(PACKED, TEXT.length)).toHaveLength(TEXT.length);
  expect(bunzip(PACKED, TEXT.length - 1)).toBeUndefined();
});

test("a short file with a block of more than 100,000 bytes is unpacked all the same", () => {
  // 300,000 letters that repeat every 3, as bzip2 1.0.8 packs them.
  const packed = Buffer.from("QlpoOTFBWSZTWVqENMQAw0+BADgAIABUMwFKaYElBcCSgsCSg8LuSKcKEgtQhpiA", "base64");
  expect(packed.length).toBeLessThan(1000);
  expect(Buffer.from(bunzip(packed, 1 << 20) ?? []).toString()).toBe("abc".repeat(100_000));
});
