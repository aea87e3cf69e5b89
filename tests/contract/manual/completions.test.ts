/** The completions in real shells, and the man page in real formatters. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commands } from "../../../src/commands/commands.ts";
import { COMPLETIONS, PROGRAM } from "../../../src/commands/completions.ts";
import { manualText } from "../../../src/commands/man.ts";
import { describeCommands } from "../../../src/manual/command-spec.ts";
import { describeWith } from "../../support/needs.ts";
import { type CompletionFiles, inBash, inFish, inZsh } from "../../support/shells.ts";

let files: CompletionFiles;

beforeAll(async () => {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-shells-")));
  files = {
    folder,
    bash: join(folder, "nixcache.bash"),
    zsh: join(folder, "_nixcache"),
    fish: join(folder, "nixcache.fish"),
  };
  const specs = describeCommands(commands);
  for (const shell of ["bash", "zsh", "fish"] as const) {
    await writeFile(files[shell], COMPLETIONS[shell]?.(PROGRAM, specs) ?? "");
  }
  await mkdir(join(folder, "some folder"));
  await mkdir(join(folder, "fold"));
  await writeFile(join(folder, "fold", "inside"), "");
  await writeFile(join(folder, "file.nix"), "");
  // The shells look whether there is such a program.
  await writeFile(join(folder, "nixcache"), "#!/bin/sh\n");
  await chmod(join(folder, "nixcache"), 0o755);
});
afterAll(() => rm(files.folder, { recursive: true }));

describe("bash", () => {
  test.each([
    [["nixcache", "pub"], ["publish"]],
    [["nixcache", "publish", "--fl"], ["--flake"]],
    [
      ["nixcache", "gc", "--keep"],
      ["--keep-last", "--keep-branch"],
    ],
    [["nixcache", "serve", "--log-level", "a"], ["access"]],
    // As readline splits --log-level=a and --log-level=
    [["nixcache", "serve", "--log-level", "=", "a"], ["access"]],
    [
      ["nixcache", "serve", "--log-level", "="],
      ["error", "warn", "info", "access"],
    ],
    [
      ["nixcache", "completions", ""],
      ["bash", "zsh", "fish"],
    ],
    [["nixcache", "serve", "--cache", "./f"], ["./fold"]],
    [
      ["nixcache", "publish", "--file", "f"],
      ["fold", "file.nix"],
    ],
    [["nixcache", "publish", "some"], ["some folder"]],
    [["nixcache", "publish", "-A", ""], []],
    [["nixcache", "serve", "--port", ""], []],
    [["nixcache", "serve", ""], []],
    [
      ["nixcache", "publish", "--watch", "--", "--x", "f"],
      ["fold", "file.nix"],
    ],
    [["nixcache", "nonsense", ""], []],
  ])("%j", async (words, expected) => {
    expect((await inBash(files, words)).sort()).toEqual(expected.toSorted());
  });
});

describeWith(["fish"], "fish", () => {
  test.each([
    ["nixcache pub", ["publish"]],
    ["nixcache publish --fl", ["--flake"]],
    ["nixcache gc --keep", ["--keep-branch", "--keep-last"]],
    ["nixcache serve --log-level a", ["access"]],
    ["nixcache serve --log-level=a", ["--log-level=access"]],
    ["nixcache completions ", ["bash", "fish", "zsh"]],
    ["nixcache serve --cache ./f", ["./fold/"]],
    ["nixcache publish --file f", ["file.nix", "fold/"]],
    ["nixcache publish fi", ["file.nix"]],
    ["nixcache publish -A ", []],
    ["nixcache serve --port ", []],
    ["nixcache serve ", []],
    ["nixcache --ver", ["--version"]],
    ["nixcache gc --ver", ["--verbose"]],
  ])("%s", async (line, expected) => {
    expect((await inFish(files, line)).sort()).toEqual(expected);
  });
});

describeWith(["zsh"], "zsh", () => {
  const TYPED = {
    "nixcache pub": "nixcache publish ",
    // A blank or a value may follow: zsh takes the = away where it is not wanted.
    "nixcache publish --fl": "nixcache publish --flake=",
    "nixcache gc --keep": "nixcache gc --keep-",
    "nixcache serve --log-level a": "nixcache serve --log-level access ",
    "nixcache serve --log-level=a": "nixcache serve --log-level=access ",
    "nixcache completions f": "nixcache completions fish ",
    "nixcache serve --cache ./f": "nixcache serve --cache ./fold/",
    "nixcache publish --file fi": "nixcache publish --file file.nix ",
    "nixcache publish --json so": "nixcache publish --json some\\ folder/",
    "nixcache serve --port f": "nixcache serve --port f",
    "nixcache keygen f": "nixcache keygen f",
    "nixcache keygen name fi": "nixcache keygen name file.nix ",
    "nixcache --ver": "nixcache --version ",
  };

  test.each([
    ["sourced", () => `compinit -u -D; . ${files.zsh}`],
    ["found in $fpath", () => `fpath=(${files.folder} $fpath); compinit -u -D`],
  ])("%s", async (_, install) => {
    const found = await inZsh(files, Object.keys(TYPED), install());
    expect(Object.fromEntries(Object.keys(TYPED).map((line, at) => [line, found[at]]))).toEqual(TYPED);
  });
});

describeWith(["mandoc", "groff"], "the man page", () => {
  const render = async (...argv: string[]) => {
    const file = join(files.folder, "nixcache.1");
    await writeFile(file, manualText(commands, { version: "1.2.3", date: "2026-11-23" }));
    const child = Bun.spawn([...argv, file], { stdout: "pipe", stderr: "pipe" });
    const [text, complaints] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return { text, complaints };
  };

  test("mandoc has nothing to complain about", async () => {
    expect(await render("mandoc", "-T", "lint", "-W", "warning")).toEqual({ text: "", complaints: "" });
  });

  test.each([
    [["groff", "-ww", "-man", "-Tutf8", "-P-cbou", "-rLL=200n"]],
    [["mandoc", "-T", "utf8", "-O", "width=200"]],
  ])("%j shows the flags as they are typed", async (argv) => {
    const { text, complaints } = await render(...argv);
    expect(complaints).toBe("");
    // mandoc prints bold letters twice, with a backspace in between.
    const plain = text.replace(/.[\b]/g, "");
    expect(plain).toContain("nixcache publish [flags] [WHAT ...]");
    expect(plain).toMatch(/^ +--log-level error\|warn\|info\|access$/m);
    expect(plain).toMatch(/^ +-A, --attr ATTR$/m);
    expect(plain).toMatch(/^ +130 +Interrupted\.$/m);
    expect(plain).toContain("nixcache 1.2.3");
    expect(plain).toContain('"" for none');
  });
});
