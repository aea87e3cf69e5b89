import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";
import type { CommandResult, RunCommand } from "../../../src/nix/command.ts";
import { openNixStore } from "../../../src/nix/store.ts";
import { createNixDatabase, insertPath, storePath } from "../../support/nix-database.ts";

const A = storePath("a");
const B = storePath("b");
const ABSENT = storePath("absent");

let folder: string;
let root: string;
let calls: string[][];
/** What Nix's commands answer; each call takes the next. */
let answers: CommandResult[];

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "nixcache-test-store-")));
  root = join(folder, "root");
  mkdirSync(join(root, "nix/store"), { recursive: true });
  mkdirSync(join(root, "nix/var/nix/db"), { recursive: true });
  const db = createNixDatabase(join(root, "nix/var/nix/db/db.sqlite"));
  insertPath(db, B);
  insertPath(db, A, { references: [B, A] });
  db.close();
  mkdirSync(join(root, A, "bin"), { recursive: true });
  writeFileSync(join(root, A, "bin/run"), "");
  writeFileSync(join(root, B), "");
  calls = [];
  answers = [];
});
afterEach(() => rmSync(folder, { recursive: true }));

const open = (env: Record<string, string> = {}) =>
  openNixStore({
    env: { NIX_REMOTE: root, ...env },
    cwd: folder,
    run: async (argv) => {
      calls.push([...argv]);
      const answer = answers.shift();
      if (answer === undefined) throw new Error(`unexpected: ${argv.join(" ")}`);
      return answer;
    },
  });

async function failure(promise: Promise<unknown>): Promise<NixcacheError> {
  const error: unknown = await promise.then(
    () => new Error("it succeeded"),
    (reason: unknown) => reason,
  );
  if (!(error instanceof NixcacheError)) throw error;
  return error;
}

describe("a chroot store", () => {
  test("its files are under its root", () => {
    expect(open().storeDir).toBe("/nix/store");
    expect(open().realPath(A)).toBe(join(root, A));
    expect(() => open().realPath("/etc/passwd")).toThrow("/etc/passwd is not in /nix/store");
  });

  test("the closure, references first, each once", async () => {
    const infos = await open().closure([A, B, A]);
    expect(infos.map((info) => info.path)).toEqual([B, A]);
    expect(infos[1]?.references).toEqual([A, B].sort());
    expect(await open().closure([])).toEqual([]);
    expect(calls).toEqual([]);
  });

  test("a path that is not valid", async () => {
    const error = await failure(open().closure([A, ABSENT]));
    expect(error.code).toBe("nix-store");
    expect(error.message).toBe(`${ABSENT} is not a valid path of the Nix store`);
    expect(error.hint).toContain(`nix-store --realise ${ABSENT}`);
  });
});

describe("resolve", () => {
  beforeEach(() => {
    symlinkSync(A, join(folder, "result"));
    symlinkSync("result", join(folder, "again"));
    symlinkSync(join(root, A), join(folder, "real"));
    symlinkSync(folder, join(folder, "here"));
    symlinkSync("loop", join(folder, "loop"));
    symlinkSync("/nowhere/at/all", join(folder, "dangling"));
    symlinkSync(ABSENT, join(folder, "collected"));
    writeFileSync(join(folder, "file"), "");
  });

  test.each<[string, () => string]>([
    ["a store path", () => A],
    ["with a slash at the end", () => `${A}/`],
    ["a path below it", () => `${A}/bin/run`],
    ["one that leads back", () => `${A}/bin/../../${A.slice("/nix/store/".length)}`],
    ["a link", () => "./result"],
    ["a link without ./", () => "result"],
    ["a link with a slash", () => "result/"],
    ["through a link", () => "result/bin/run"],
    ["a link to a link", () => "again"],
    ["an absolute link", () => join(folder, "result")],
    ["through a link to a folder", () => "here/here/again"],
    ["the folder on disk", () => join(root, A, "bin")],
    ["a link to the folder on disk", () => "real/bin"],
  ])("%s", async (_, argument) => {
    expect(await open().resolve(argument())).toBe(A);
  });

  test.each<[string, string, string]>([
    ["", "the empty text", "the empty text is no path"],
    ["none", "what is not there", "it does not exist"],
    ["file", "a file elsewhere", "it is not in the Nix store"],
    ["file/below", "below a file", "it does not exist"],
    ["dangling", "a link that leads nowhere", "it does not exist"],
    ["loop", "a link to itself", "too many symbolic links"],
    ["/", "the root", "it is not in the Nix store"],
    ["/nix/store/.links", "Nix's own files", ".links is no store path's name"],
    ["/nix/store/x", "a short name", "x is no store path's name"],
    [ABSENT, "a path that is not valid", `${ABSENT} is not a valid path of the Nix store`],
    ["collected", "a link to a collected path", `${ABSENT} is not a valid path of the Nix store`],
  ])("%p: %s", async (argument, _, message) => {
    const error = await failure(open().resolve(argument));
    expect(error.code).toBe("nix-store");
    expect(error.message).toContain(message);
    expect(error.hint).not.toBeUndefined();
  });

  test("a store folder that is itself reached by a link", async () => {
    symlinkSync(root, join(folder, "link-to-root"));
    const store = open({ NIX_REMOTE: join(folder, "link-to-root") });
    expect(await store.resolve(join(root, A))).toBe(A);
    expect(await store.resolve(join(folder, "link-to-root", A))).toBe(A);
  });
});

describe("no database to read", () => {
  const NONE = { NIX_REMOTE: "", NIX_STATE_DIR: "/does/not/exist" };
  const ok = (stdout: string): CommandResult => ({ exitCode: 0, stdout, stderr: "" });
  const json = JSON.stringify([
    { path: B, narHash: `sha256:${"0".repeat(64)}`, narSize: 120, references: [] },
    { path: A, narHash: `sha256:${"0".repeat(64)}`, narSize: 120, references: [B] },
  ]);

  test("and no daemon: there is no store", async () => {
    const error = await failure(open(NONE).closure([A]));
    expect(error.message).toBe("there is no Nix store here: /does/not/exist/db/db.sqlite does not exist");
    expect(error.hint).toContain("Install Nix");
    expect((await failure(open(NONE).resolve(A))).message).toContain("there is no Nix store here");
    expect(calls).toEqual([]);
  });

  test("a daemon is asked", async () => {
    answers = [ok(""), ok(json)];
    const infos = await open({ ...NONE, NIX_REMOTE: "daemon" }).closure([A]);
    expect(infos.map((info) => info.path)).toEqual([B, A]);
    expect(calls).toEqual([
      ["nix-store", "--check-validity", "--print-invalid", A],
      ["nix", "--extra-experimental-features", "nix-command flakes", "path-info", "--recursive", "--json", A],
    ]);
  });

  test("a database that is none: Nix is asked about the same store", async () => {
    writeFileSync(join(root, "nix/var/nix/db/db.sqlite"), "no database at all ".repeat(100));
    answers = [ok("")];
    const store = openNixStore({
      storeRoot: root,
      env: {},
      run: async (argv) => {
        calls.push([...argv]);
        return answers.shift() as CommandResult;
      },
    });
    expect(await store.resolve(A)).toBe(A);
    expect(calls).toEqual([["nix-store", "--store", root, "--check-validity", "--print-invalid", A]]);
  });

  test("Nix says that a path is not valid", async () => {
    answers = [ok(`${ABSENT}\n`), ok(`${ABSENT}\n`)];
    const store = open({ ...NONE, NIX_REMOTE: "daemon" });
    const message = `${ABSENT} is not a valid path of the Nix store`;
    expect((await failure(store.closure([A, ABSENT]))).message).toBe(message);
    expect((await failure(store.resolve(ABSENT))).message).toBe(message);
    expect(calls.length).toBe(2);
  });

  test("a Nix that insists on --json-format is given it", async () => {
    answers = [
      ok(""),
      { exitCode: 1, stdout: "", stderr: "error: please specify '--json-format'" },
      ok(json),
    ];
    expect((await open({ ...NONE, NIX_REMOTE: "daemon" }).closure([A])).length).toBe(2);
    expect(calls[2]?.slice(-3)).toEqual(["--json-format", "2", A]);
  });

  test("a command that fails", async () => {
    answers = [{ exitCode: 1, stdout: "", stderr: "warning: x\nerror: cannot connect to daemon\n" }];
    const error = await failure(open({ ...NONE, NIX_REMOTE: "daemon" }).closure([A]));
    expect(error.message).toBe(
      "`nix-store --check-validity --print-invalid` failed with status 1: cannot connect to daemon",
    );
  });

  test("no Nix in PATH", async () => {
    const store = openNixStore({ env: { ...NONE, NIX_REMOTE: "daemon", PATH: folder } });
    const error = await failure(store.resolve(A));
    expect(error.message).toBe("cannot run `nix-store`: it is not in PATH");
    expect(error.hint).toContain("Install Nix");
  });

  test("more paths than a command line takes are asked for in several calls", async () => {
    const paths = Array.from({ length: 10_000 }, (_, index) => storePath(`${"long-".repeat(38)}${index}`));
    const infoOf = (path: string) => ({ path, narHash: `sha256:${"0".repeat(64)}`, narSize: 1 });
    const run: RunCommand = async (argv) => {
      const asked = argv.filter((word) => word.startsWith("/nix/store/"));
      calls.push([...argv]);
      return ok(argv.includes("path-info") ? JSON.stringify(asked.map(infoOf)) : "");
    };
    const env = { ...NONE, NIX_REMOTE: "daemon" };
    const found = await openNixStore({ env, run }).closure(paths);
    expect(found.map((info) => info.path)).toEqual([...paths].sort());
    expect(calls.length).toBe(8);
    for (const argv of calls) expect(argv.join(" ").length).toBeLessThan(1024 ** 2);
  });
});
