/** Every command of the pages, run as it stands there, and every piece of configuration, read by what it is for. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { complaint, wordsOf } from "../support/command-lines.ts";
import { PAGES } from "../support/docs.ts";
import {
  NOT_RUN,
  notRunReason,
  ownArguments,
  programsOf,
  runPage,
  splitShell,
  statementsOf,
} from "../support/docs-shell.ts";
import { openWorld, packRelease, type Seed, type Surroundings, serveFiles } from "../support/docs-world.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { nixAtLeast, shellDerivation, type TestNix } from "../support/nix.ts";
import { startRegistry } from "../support/registry.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const withCommands = PAGES.filter((page) => statementsOf(page).length > 0).map(
  (page) => [page.file, page] as const,
);
const notRun = PAGES.flatMap(statementsOf).filter(({ text }) => notRunReason(text) !== undefined);

/** Where it matters what the cache holds. */
const SEEDS: Readonly<Record<string, Seed>> = {
  "docs/inspecting.md": "branch",
  "docs/moving.md": "nixcache-oci",
};

describeWith(["nix", "registry"], "the commands", () => {
  let around: Surroundings;

  beforeAll(async () => {
    const nix = cleanup.add(await openNix()).value;
    const registry = cleanup.add(await startRegistry());
    const elsewhere = await nix.build(shellDerivation("elsewhere", "echo elsewhere > $out"));
    const site = join(nix.folder, "site");
    await nix.run("nix", ["copy", "--to", `file://${site}/cache`, elsewhere]);
    await packRelease(join(site, "release"));
    const { url } = cleanup.add(serveFiles(site));
    around = {
      ...{ nix, registry: registry.host, elsewhere },
      ...{ binaryCache: `${url}/cache`, releases: `${url}/release` },
    };
  });

  test.each(withCommands)("%s", async (_, page) => {
    const world = await openWorld(around, SEEDS[page.file] ?? "hello");
    try {
      expect(await runPage(page, world)).toEqual([]);
    } finally {
      await world.close();
    }
  });
});

test("what cannot run here is known by a reason that something needs", () => {
  const unused = NOT_RUN.filter(({ command }) => !notRun.some(({ text }) => command.test(text)));
  expect(unused.map(({ reason }) => reason)).toEqual([]);
});

test("a server in the foreground is the last command of its block: what stands behind it would not run", () => {
  const hidden = PAGES.flatMap(({ blocks }) => blocks).filter(({ language, text }) => {
    if (language !== "sh") return false;
    return splitShell(text)
      .slice(0, -1)
      .some((statement) => /\bnixcache serve\b/.test(statement) && !/\s&\s*(#.*)?$/.test(statement));
  });
  expect(hidden.map(({ at }) => at)).toEqual([]);
});

describe("what cannot run here", () => {
  let folder: string;

  beforeAll(async () => {
    folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-docs-")));
    await mkdir(join(folder, "work"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test.each(notRun.map(({ at, text }) => [at, text] as const))("%s: %s", async (_, text) => {
    const programs = await programsOf(text, { folder });
    expect(programs.length).toBeGreaterThan(0);
    for (const words of programs) {
      const own = ownArguments(words);
      if (own !== undefined) expect(complaint(own)).toBeUndefined();
      if (words[0] !== "npx") continue;
      // Of the project itself: the Bun that it is tested with, and a script that it has.
      expect(words.slice(0, 3)).toEqual(["npx", "--yes", `bun@${Bun.version}`]);
      if (words[3] === "run") expect(Object.keys(packageJson.scripts)).toContain(words[4] as string);
      else expect(words[3]).toBe("install");
    }
  });
});

const blocksOf = (language: string) =>
  PAGES.flatMap(({ blocks }) => blocks.filter((block) => block.language === language)).map(
    ({ at, text }) => [at, text] as const,
  );

const ini = blocksOf("ini");
const isUnit = (text: string) => text.startsWith("[Unit]");

describeWith(["nix"], "configuration", () => {
  let nix: TestNix;

  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
  });

  test.each(blocksOf("nix"))("%s is Nix", async (_, text) => {
    // A piece of a set.
    const whole = /^[\w.-]+ = /.test(text) ? `{ ${text} }` : text;
    await nix.run("nix-instantiate", ["--parse", "-"], { stdin: whole });
  });

  test.each(ini.filter(([, text]) => !isUnit(text)))("%s is taken by Nix", async (_, text) => {
    // The key of a reader, which is 32 bytes of nothing here.
    const key = `me-1:${Buffer.alloc(32).toString("base64")}`;
    const file = join(nix.folder, "page.conf");
    await writeFile(
      file,
      text.replaceAll(/\bme-(\d):…/g, (_, n) => key.replace("1", n)),
    );
    const env = { NIX_USER_CONF_FILES: file };
    const show = nixAtLeast("2.20") ? "config show" : "show-config";
    const shown = await nix.run("nix", show.split(" "), { env });
    const said = await nix.run("sh", ["-c", `nix ${show} 2>&1 > /dev/null`], { env });
    expect(said).toBe("");
    for (const [, extra, name = "", value = ""] of text.matchAll(/^(extra-)?([\w-]+) = (.*)$/gm)) {
      const line = shown.split("\n").find((line) => line.startsWith(`${name} =`));
      expect(line).toBeDefined();
      if (extra === undefined || !value.includes("…"))
        expect(line).toContain(value.split("me-")[0] as string);
    }
  });
});

test.each(ini.filter(([, text]) => isUnit(text)))("%s starts what there is", (_, text) => {
  const [, command = ""] = /^ExecStart=\S*\/nixcache (.*)$/m.exec(text) ?? [];
  expect(complaint(wordsOf(command))).toBeUndefined();
});

test.each(blocksOf("xml"))("%s starts what there is", (_, text) => {
  const open: string[] = [];
  for (const [, slash, name = ""] of text.matchAll(/<(\/?)(\w+)[^>]*(?<!\/)>/g)) {
    if (slash === "") open.push(name);
    else expect(open.pop()).toBe(name);
  }
  expect(open).toEqual([]);
  const [, array = ""] = /<key>ProgramArguments<\/key>\s*<array>(.*?)<\/array>/s.exec(text) ?? [];
  const [program, ...words] = [...array.matchAll(/<string>(.*?)<\/string>/g)].map(([, word = ""]) => word);
  expect(program).toBe("/usr/local/bin/nixcache");
  expect(complaint(words)).toBeUndefined();
});

describeWith(["nginx"], "nginx", () => {
  test.each(blocksOf("nginx"))("%s is taken by it", async (_, text) => {
    const folder = await mkdtemp(join(tmpdir(), "nixcache-test-docs-"));
    try {
      const file = join(folder, "nginx.conf");
      await writeFile(
        file,
        `pid ${folder}/pid; error_log stderr;\nevents {}\nhttp {\naccess_log off;\n${text}\n}\n`,
      );
      const nginx =
        Bun.which("nginx", { PATH: `${process.env.PATH}:/usr/local/sbin:/usr/sbin:/sbin` }) ?? "nginx";
      const child = Bun.spawn([nginx, "-t", "-c", file, "-p", folder], {
        stdout: "ignore",
        stderr: "pipe",
      });
      const [said, code] = await Promise.all([child.stderr.text(), child.exited]);
      expect({ code, said }).toEqual({ code: 0, said: expect.stringContaining("test is successful") });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
