import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  closureInDatabase,
  DatabaseUnreadable,
  isValidInDatabase,
  reading,
} from "../../../src/nix/database.ts";
import { createNixDatabase, insertPath, storePath } from "../../support/nix-database.ts";

let folder: string;
let file: string;
let writer: Database;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-db-"));
  file = join(folder, "db.sqlite");
  writer = createNixDatabase(file);
});
afterEach(() => {
  writer.close();
  rmSync(folder, { recursive: true });
});

/** The last connection that closes a database in WAL mode takes `-wal` and `-shm` away. */
function stopWriting(): void {
  writer.close();
  expect(readdirSync(folder)).toEqual(["db.sqlite"]);
}

const A = storePath("a");
const B = storePath("b");
const C = storePath("c");

describe("closureInDatabase", () => {
  test("all that Nix records", () => {
    insertPath(writer, A, {
      references: [A],
      deriver: `${storePath("d")}.drv`,
      narSize: 2 ** 40,
      sigs: "k-1:AAAA k-2:BBBB",
      ca: "text:sha256:xyz",
      ultimate: 1,
      registrationTime: 1795457336,
      hash: `sha256:${"00".repeat(31)}ff`,
    });
    expect(closureInDatabase(file, [A])).toEqual([
      {
        path: A,
        narHash: "sha256:1zq0000000000000000000000000000000000000000000000000",
        narSize: 2 ** 40,
        references: [A],
        deriver: `${storePath("d")}.drv`,
        sigs: ["k-1:AAAA", "k-2:BBBB"],
        ca: "text:sha256:xyz",
        ultimate: true,
        registrationTime: 1795457336,
      },
    ]);
  });

  test("what is NULL or empty is left out", () => {
    insertPath(writer, A, { sigs: "", ca: "", deriver: "" });
    const [info] = closureInDatabase(file, [A]);
    expect(info).toMatchObject({ sigs: [], references: [], ultimate: false });
    expect(info).not.toContainAnyKeys(["ca", "deriver"]);
  });

  test("what is referred to, directly or not, and nothing else", () => {
    insertPath(writer, C);
    insertPath(writer, storePath("unrelated"), { references: [C] });
    insertPath(writer, B, { references: [C, B] });
    insertPath(writer, A, { references: [C, B] });
    const references = closureInDatabase(file, [A]).map((info) => [info.path, info.references] as const);
    expect(new Map(references)).toEqual(
      new Map([
        [A, [B, C].sort()],
        [B, [B, C].sort()],
        [C, []],
      ]),
    );
  });

  test("several roots, one inside the closure of the other", () => {
    insertPath(writer, B);
    insertPath(writer, A, { references: [B] });
    insertPath(writer, C);
    expect(closureInDatabase(file, [B, A, C]).length).toBe(3);
  });

  test("a root that is not valid", () => {
    insertPath(writer, A);
    expect(() => closureInDatabase(file, [A, B])).toThrow(`${B} is not a valid path of the Nix store`);
  });

  test.each([null, 0, -1])("the NAR size %p", (narSize) => {
    insertPath(writer, A, { narSize });
    expect(() => closureInDatabase(file, [A])).toThrow(`${A}: got NAR size ${narSize}`);
  });

  test.each(["sha256:12", "", "sha512:00", `sha256:${"zz".repeat(32)}`])("the hash %p", (hash) => {
    insertPath(writer, A, { hash });
    expect(() => closureInDatabase(file, [A])).toThrow(`${A}: hash`);
  });

  test("10,000 paths with 50,000 references", () => {
    writer.transaction(() => {
      for (let index = 0; index < 10_000; index++) {
        const references = Array.from({ length: Math.min(index, 5) }, (_, back) =>
          storePath(`p${index - 1 - back}`),
        );
        insertPath(writer, storePath(`p${index}`), { references });
      }
    })();
    expect(closureInDatabase(file, [storePath("p9999")]).length).toBe(10_000);
  });
});

describe("who else has the database open", () => {
  test("nobody: it is read, and nothing is left in Nix's folder", () => {
    insertPath(writer, A);
    stopWriting();
    expect(isValidInDatabase(file, A)).toBe(true);
    expect(isValidInDatabase(file, B)).toBe(false);
    expect(closureInDatabase(file, [A]).length).toBe(1);
    expect(readdirSync(folder)).toEqual(["db.sqlite"]);
  });

  test("a writer in mid-transaction: what was committed before is seen", () => {
    insertPath(writer, A);
    writer.run("BEGIN IMMEDIATE");
    insertPath(writer, B);
    expect(isValidInDatabase(file, A)).toBe(true);
    expect(isValidInDatabase(file, B)).toBe(false);
    writer.run("COMMIT");
    expect(isValidInDatabase(file, B)).toBe(true);
  });

  test("a writer that comes and goes while an idle database is read: it is read again", () => {
    insertPath(writer, A);
    stopWriting();
    let count = 0;
    const seen = reading(file, (db) => {
      count += 1;
      if (count === 1) {
        const other = new Database(file);
        insertPath(other, B);
        other.close();
      }
      return db.query("SELECT path FROM ValidPaths ORDER BY id").values().flat();
    });
    expect(count).toBe(2);
    expect(seen).toEqual([A, B]);
  });

  test("a writer that comes every time: given up", () => {
    stopWriting();
    let count = 0;
    const read = () => {
      const other = new Database(file);
      insertPath(other, storePath(`p${count++}`));
      other.close();
    };
    expect(() => reading(file, read)).toThrow(DatabaseUnreadable);
    expect(count).toBe(3);
  });

  test("a writer in a rollback journal instead of the log", () => {
    writer.run("PRAGMA journal_mode = TRUNCATE");
    insertPath(writer, A);
    expect(isValidInDatabase(file, A)).toBe(true);
    writer.run("BEGIN IMMEDIATE");
    insertPath(writer, B);
    expect(isValidInDatabase(file, B)).toBe(false);
    writer.run("COMMIT");
    expect(isValidInDatabase(file, B)).toBe(true);
  });
});

describe("what cannot be read", () => {
  const failure = (path: string): DatabaseUnreadable => {
    try {
      isValidInDatabase(path, A);
    } catch (error) {
      if (error instanceof DatabaseUnreadable) return error;
      throw error;
    }
    throw new Error("it was read");
  };

  test("no file", () => {
    expect(failure(join(folder, "none", "db.sqlite")).missing).toBe(true);
  });

  test("something else", () => {
    const other = join(folder, "other.sqlite");
    writeFileSync(other, "not a database, but long enough for a header\n".repeat(100));
    expect(failure(other)).toMatchObject({ missing: false });
    expect(failure(folder)).toMatchObject({ missing: false });
  });

  test("other tables", () => {
    const other = join(folder, "other.sqlite");
    const db = new Database(other);
    db.run("CREATE TABLE Paths (id)");
    db.close();
    expect(failure(other).message).toContain("no such table: ValidPaths");
  });

  test("a name that is special in a URI", () => {
    const odd = join(folder, "a?b#c%20 d.sqlite");
    const db = createNixDatabase(odd);
    insertPath(db, A);
    db.close();
    expect(isValidInDatabase(odd, A)).toBe(true);
  });
});
