import { describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { builtPaths } from "../../../src/nix/built.ts";
import { Queue } from "../../../src/watch/queue.ts";
import { announced, builtFromNowOn, outputsOf } from "../../../src/watch/source.ts";
import { createNixDatabase, insertPath, type PathFields, storePath } from "../../support/nix-database.ts";

const drv = storePath("thing.drv");
const other = storePath("other.drv");
const BUILT: PathFields = { deriver: drv, ultimate: 1, narSize: 1000 };

function withStore(
  body: (
    store: { env: Record<string, string> },
    add: (name: string, fields?: PathFields) => string,
    queue: Queue,
  ) => void,
): void {
  const root = mkdtempSync(join(tmpdir(), "nixcache-test-source-"));
  mkdirSync(join(root, "nix/var/nix/db"), { recursive: true });
  const db = createNixDatabase(join(root, "nix/var/nix/db/db.sqlite"));
  try {
    const add = (name: string, fields: PathFields = BUILT) => {
      insertPath(db, storePath(name), fields);
      return storePath(name);
    };
    body({ env: { NIX_REMOTE: root } }, add, new Queue(join(root, "queue"), () => []));
  } finally {
    db.close();
    rmSync(root, { recursive: true });
  }
}

const pathsOf = (news: readonly { path: string }[]) => news.map(({ path }) => path);

describe("what counts as built", () => {
  test.each<[string, PathFields, boolean]>([
    ["an output that was built here", { deriver: drv, ultimate: 1 }, true],
    ["one with a fixed hash", { deriver: drv, ultimate: 1, ca: "fixed:out:sha256:x" }, true],
    ["one that was signed here as well", { deriver: drv, ultimate: 1, sigs: "key:sig" }, true],
    ["one that a remote machine built", { deriver: drv }, true],
    ["one that was substituted", { deriver: drv, sigs: "cache.nixos.org-1:sig" }, false],
    ["one with a fixed hash that was substituted", { deriver: drv, ca: "fixed:out:sha256:x" }, false],
    ["a source", { ca: "text:sha256:x" }, false],
  ])("%s", (_, fields, counts) => {
    withStore((store, add) => {
      const path = add("path", fields);
      expect(pathsOf(builtPaths(store, 0).paths)).toEqual(counts ? [path] : []);
    });
  });

  test("no derivation, whatever its record says", () => {
    withStore((store, add) => {
      add("made.drv", BUILT);
      expect(builtPaths(store, 0).paths).toEqual([]);
    });
  });
});

test("outputs of given derivations: those there, then each new one once", () => {
  withStore((store, add) => {
    const before = add("before");
    add("foreign", { ...BUILT, deriver: other });
    const source = outputsOf(new Set([drv]), store);
    expect(source.news()).toEqual([{ path: before, narSize: 1000 }]);
    const [second, third] = [add("second"), add("third")];
    expect(pathsOf(source.news())).toEqual([second, third]);
    expect(source.news()).toEqual([]);
  });
});

describe("what a command builds", () => {
  test("everything from now on, and nothing from before", () => {
    withStore((store, add, queue) => {
      add("before");
      const source = builtFromNowOn(store, queue, "run-1");
      expect(source.news()).toEqual([]);
      const path = add("path", { ...BUILT, deriver: other });
      expect(pathsOf(source.news())).toEqual([path]);
      expect(source.news()).toEqual([]);
      expect(source.all()).toEqual([path]);
      source.done();
      expect(queue.read().size).toBe(0);
    });
  });

  test("what a killed run has seen is the next one's, once", () => {
    withStore((store, add, queue) => {
      const killed = builtFromNowOn(store, queue, "run-1");
      const seen = add("seen");
      killed.news();
      const unseen = add("unseen");
      const next = builtFromNowOn(store, queue, "run-2");
      const own = add("own");
      expect(pathsOf(next.news())).toEqual([seen, own]);
      expect(next.all()).toEqual([seen, own]);
      expect(next.all()).not.toContain(unseen);
      // A third one, should this be killed as well.
      expect(builtFromNowOn(store, queue, "run-3").all()).toEqual([seen, own]);
      next.done();
      expect(queue.read().size).toBe(0);
    });
  });
});

test("what was announced stays until all of its file is committed", () => {
  withStore((_, __, queue) => {
    const [a, b, c] = [storePath("a"), storePath("b"), storePath("c")];
    queue.append("x.drv", [a, b]);
    const source = announced(queue);
    expect(pathsOf(source.news())).toEqual([a, b]);
    queue.append("y.drv", [c, a]);
    expect(pathsOf(source.news())).toEqual([c]);
    source.committed([a]);
    expect([...queue.read().keys()]).toEqual(["x.drv", "y.drv"]);
    source.committed([c]);
    expect([...queue.read().keys()]).toEqual(["x.drv"]);
    source.committed([b]);
    expect(queue.read().size).toBe(0);
  });
});
