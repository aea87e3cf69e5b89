/** Files of ours that others of the machine must not read, and what strangers write into the cache. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../../scripts/process.ts";
import { IndexDatabase } from "../../../src/cache/database.ts";
import { createKeyPair, keyFileWarning } from "../../../src/nar/key-file.ts";
import { isPublicKey } from "../../../src/nar/signing-key.ts";

const folder = await mkdtemp(join(tmpdir(), "nixcache-test-files-"));
afterAll(() => rm(folder, { recursive: true, force: true }));

describe("S24: the local index is its owner's alone", () => {
  const modes = async (directory: string): Promise<[string, string][]> => {
    const names = await readdir(directory, { recursive: true });
    return Promise.all(
      ["", ...names].map(async (name) => {
        return [name, ((await stat(join(directory, name))).mode & 0o777).toString(8)] as [string, string];
      }),
    );
  };

  test("a new one, whatever the umask, and one that an earlier version has made", async () => {
    const before = process.umask(0);
    try {
      const path = join(folder, "index", "cache.sqlite");
      for (const round of ["new", "there"]) {
        const index = IndexDatabase.open(path);
        await index.update(
          async (change) => void change.setState({}),
          async () => {},
        );
        const found = await modes(join(folder, "index"));
        expect([round, found.filter(([, mode]) => mode !== "600" && mode !== "700")]).toEqual([round, []]);
        expect(found.length).toBeGreaterThan(1);
        index.close();
        await chmod(path, 0o644);
      }
    } finally {
      process.umask(before);
    }
  });
});

describe("S28: /public-key prints keys alone", () => {
  const good = `me-1:${"A".repeat(43)}=`;
  test.each([
    [good, true],
    [`${good}\n`, false],
    [`${good}\nrequire-sigs = false`, false],
    [`me\u001b[2J-1:${"A".repeat(43)}=`, false],
    [`me\u202e-1:${"A".repeat(43)}=`, false],
    [`m e:${"A".repeat(43)}=`, false],
    ["me-1:AAAA", false],
    ["", false],
  ])("%j: %p", (text, isKey) => {
    expect(isPublicKey(text)).toBe(isKey);
  });
});

describe("S35: a secret key that others can read is told", () => {
  test("by the mode of its file", async () => {
    const file = join(folder, "secret.key");
    createKeyPair("me-1", file, join(folder, "public.key"));
    expect(keyFileWarning({ file })).toBeUndefined();
    expect(keyFileWarning({ text: "me-1:secret", from: "NIX_SIGNING_KEY" })).toBeUndefined();
    for (const mode of [0o604, 0o602, 0o644]) {
      await chmod(file, mode);
      expect(keyFileWarning({ file })).toStartWith(
        `every user of this machine can read the signing key ${file}`,
      );
    }
  });
});

describe("S32: the version that is installed is the name of a release", () => {
  test.each(["../../evil/v1", "v1/../../x", "v1..2", "latest", "", "v1?x", "v1#x", "v1 2", "-v1", "v1\nv2"])(
    "%j is refused before anything is fetched",
    async (version) => {
      const child = Bun.spawn(["sh", join(ROOT, "scripts", "install.sh"), version, join(folder, "bin")], {
        // Nothing listens there; whoever asks fails with another message.
        env: { PATH: process.env.PATH ?? "", NIXCACHE_RELEASES: "http://127.0.0.1:9/releases" },
        stdout: "ignore",
        stderr: "pipe",
      });
      expect([await child.exited, await child.stderr.text()]).toEqual([
        1,
        `nixcache: the version is ${version}, expected a release such as v1.2.3\n`,
      ]);
    },
  );
});
