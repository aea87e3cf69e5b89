import { afterAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keptSecret } from "../../../src/system/kept-secret.ts";

const folder = await mkdtemp(join(tmpdir(), "nixcache-test-secret-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

test("is the same the next time, and its owner's alone", async () => {
  const file = join(folder, "key");
  const secret = keptSecret(file);
  expect(secret).toHaveLength(32);
  expect(keptSecret(file)).toEqual(secret);
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect(await readdir(folder)).toEqual(["key"]);
});

test("is another one in another place", () => {
  expect(keptSecret(join(folder, "a"))).not.toEqual(keptSecret(join(folder, "b")));
});

describe("S7: what somebody else may know is no secret", () => {
  const known = new Uint8Array(32).fill(1);
  const cases: Record<string, (file: string) => Promise<void>> = {
    "a file that others can read": async (file) => {
      await writeFile(file, known);
      await chmod(file, 0o644);
    },
    "a link to one": async (file) => {
      await writeFile(`${file}.target`, known, { mode: 0o600 });
      await symlink(`${file}.target`, file);
    },
    "one that is too short": (file) => writeFile(file, known.subarray(1), { mode: 0o600 }),
    "a folder": async (file) => void (await Bun.$`mkdir ${file}`),
    "a FIFO": async (file) => void (await Bun.$`mkfifo -m 600 ${file}`),
    "a file in a folder that is not there": async () => {},
  };
  test.each(Object.keys(cases))("%s", async (name) => {
    const isMissing = name.includes("not there");
    const file = join(folder, name.replaceAll(" ", "-"), ...(isMissing ? ["key"] : []));
    await cases[name]?.(file);
    const secret = keptSecret(file);
    expect(secret).toHaveLength(32);
    expect(secret).not.toEqual(known);
    expect(keptSecret(file)).not.toEqual(secret);
  });
});
