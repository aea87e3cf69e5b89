import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexDatabase } from "../../../src/cache/database.ts";
import { type EntryLine, encodeEntry, entryOf } from "../../../src/cache/entry.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { sample } from "../../../src/setup/sample.ts";
import { TestHost, testEntry } from "../../support/protocol.ts";
import { choices } from "../../support/seed-choices.ts";

const SECRET = generateSecretKey("k-1", new Uint8Array(32).fill(3));
const KEYS = [publicKeyOf(SECRET)];

let folder: string;
let database: IndexDatabase;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-sample-"));
  database = IndexDatabase.open(join(folder, "index.sqlite"));
});
afterEach(() => {
  database.close();
  rmSync(folder, { recursive: true });
});

async function add(lines: readonly EntryLine[]): Promise<void> {
  await database.update(
    async (change) => {
      const layer = change.addLayer(digestOf("layer"), 1);
      for (const line of lines) change.addEntry(layer, line);
    },
    async () => {},
  );
}

function signed(name: string): EntryLine {
  const { info } = entryOf(testEntry(name).line);
  return testEntry(name, { sigs: [signNarInfo(info, SECRET)] }).line;
}

const nameOf = (path: string) => path.slice("/nix/store/".length + 33);

test("what a key vouches for and what it does not, wherever chance begins", async () => {
  await add([signed("a"), signed("b"), testEntry("c").line, testEntry("d").line]);
  const host = choices("sample");
  for (let round = 0; round < 20; round++) {
    const found = sample(database.view, KEYS, 10, host);
    expect(found.signed.map(nameOf).sort()).toEqual(["a", "b"]);
    expect(found.unsigned.map(nameOf).sort()).toEqual(["c", "d"]);
  }
  expect(sample(database.view, [], 10, host).unsigned.length).toBe(4);
});

test("never more than asked for, and nothing of an empty index", async () => {
  expect(sample(database.view, KEYS, 5, new TestHost())).toEqual({ signed: [], unsigned: [] });
  await add(Array.from({ length: 20 }, (_, at) => signed(`p${at}`)));
  expect(sample(database.view, KEYS, 5, new TestHost()).signed.length).toBe(5);
});

test("content-addressed paths need no signature", async () => {
  const entry = entryOf(testEntry("text").line);
  const ca = `text:sha256:${"0".repeat(52)}`;
  await add([encodeEntry({ ...entry, info: { ...entry.info, ca } })]);
  const { unsigned } = sample(database.view, KEYS, 5, new TestHost());
  // Whatever it says of its content must be so: this one only claims it.
  expect(unsigned.map(nameOf)).toEqual(["text"]);
});
