/**
 * Arrows point down only. This table is the architecture; a change to it belongs into the same commit as the
 * import that needs it, with a reason.
 */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { type Area, checkTable, findViolations } from "../support/architecture.ts";

const PURE = ["base", "nar", "oci", "cache"];
const ADAPTERS = ["nar adapters", "oci adapters", "cache adapters", "nix", "network", "upstream", "system"];

const AREAS: readonly Area[] = [
  // Layer 1 first: their files are taken out of the folders that are otherwise pure.
  { name: "nar adapters", layer: 1, files: ["nar/{dump,key-file}.ts"], mayImport: ["base", "nar"] },
  {
    name: "cache adapters",
    layer: 1,
    files: [
      "cache/{catalog,database,index-files,index-reader,index-update,layer-file,layer-folder,layer-merge,layer-writer,session,settling}.ts",
    ],
    mayImport: ["base", "nar", "oci", "cache", "system"],
  },
  {
    // Most of oci/ talks to registries, so here the pure ones are listed: formats and types.
    name: "oci",
    layer: 0,
    files: ["oci/{challenge,digest,github-name,link,manifest,reference,store}.ts"],
    mayImport: ["base"],
  },
  // The one door to the network: whoever asks servers does so by it.
  { name: "network", layer: 1, files: ["network/*.ts"], mayImport: ["base"] },
  { name: "oci adapters", layer: 1, files: ["oci/*.ts"], mayImport: ["base", "oci", "network", "system"] },
  { name: "nix", layer: 1, files: ["nix/*.ts"], mayImport: ["base", "nar", "system"] },
  { name: "system", layer: 1, files: ["system/*.ts"], mayImport: ["base"] },
  { name: "actions", layer: 1, files: ["actions/*.ts"], mayImport: ["base"] },
  { name: "upstream", layer: 1, files: ["upstream/*.ts"], mayImport: ["base", "nar", "network"] },

  {
    name: "base",
    layer: 0,
    files: ["{child-environment,connection,errors,host,redact,version,concurrency,zstd,zstd-frames}.ts"],
    mayImport: [],
  },
  { name: "nar", layer: 0, files: ["nar/*.ts"], mayImport: ["base"] },
  { name: "cache", layer: 0, files: ["cache/*.ts"], mayImport: ["base", "nar", "oci"] },

  // Made of the command line's definitions, which it is handed.
  { name: "manual", layer: 0, files: ["manual/*.ts"], mayImport: ["base"] },

  { name: "protocol", layer: 2, files: ["protocol/*.ts"], mayImport: [...PURE, ...ADAPTERS] },
  { name: "build", layer: 2, files: ["build/*.ts"], mayImport: ["base", "nar", "nix"] },
  { name: "publish", layer: 2, files: ["publish/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol"] },
  {
    name: "watch",
    layer: 2,
    files: ["watch/*.ts"],
    mayImport: ["base", "nar", "cache", "nix", "upstream", "system", "publish"],
  },
  // What runs in the browser knows nothing of the server; the server knows the types of what it asks for.
  { name: "browser", layer: 2, files: ["serve/page/client/*.ts"], mayImport: [] },
  {
    name: "serve",
    layer: 2,
    files: ["serve/**/*.ts"],
    mayImport: [...PURE, ...ADAPTERS, "protocol", "browser"],
  },
  {
    // Receiving is a part of the server that the server does not know: it hands over by serve/writer.ts.
    name: "receive",
    layer: 2,
    files: ["receive/*.ts"],
    mayImport: [...PURE, ...ADAPTERS, "protocol", "serve"],
  },
  {
    // A machine as a client: what Nix is told, whether it listens, and what is wrong where it does not.
    name: "setup",
    layer: 2,
    files: ["setup/*.ts"],
    mayImport: [...PURE, ...ADAPTERS, "protocol", "serve"],
  },
  { name: "init", layer: 2, files: ["init/*.ts"], mayImport: ["base", "system"] },
  { name: "verify", layer: 2, files: ["verify/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol"] },
  { name: "gc", layer: 2, files: ["gc/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol"] },
  // Why a path stays is what gc would decide.
  { name: "inspect", layer: 2, files: ["inspect/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol", "gc"] },
  { name: "pins", layer: 2, files: ["pins/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol"] },
  { name: "copy", layer: 2, files: ["copy/*.ts"], mayImport: [...PURE, ...ADAPTERS, "protocol"] },

  {
    name: "terminal",
    layer: 3,
    files: ["terminal/*.ts"],
    mayImport: [
      ...PURE,
      ...ADAPTERS,
      "actions",
      "protocol",
      "build",
      "publish",
      "serve",
      "setup",
      "verify",
      "gc",
      "inspect",
      "pins",
      "copy",
    ],
  },
  {
    name: "command line",
    layer: 3,
    files: ["{start,main,config,context}.ts", "commands/**/*.ts"],
    mayImport: [
      ...PURE,
      ...ADAPTERS,
      "actions",
      "protocol",
      "build",
      "publish",
      "watch",
      "serve",
      "receive",
      "verify",
      "gc",
      "init",
      "manual",
      "setup",
      "inspect",
      "pins",
      "copy",
      "terminal",
    ],
  },
];

test("the sources keep to the table", async () => {
  const root = join(import.meta.dir, "../../src");
  const sources = new Map<string, string>();
  for await (const file of new Bun.Glob("**/*.ts").scan({ cwd: root })) {
    sources.set(file.replaceAll("\\", "/"), await Bun.file(join(root, file)).text());
  }
  expect(sources.has("errors.ts")).toBe(true);
  expect(findViolations(sources, AREAS)).toEqual([]);
});

test("the table has no arrow that points up", () => {
  expect(checkTable(AREAS)).toEqual([]);
});

/** Each case is a small project; what is not in it is not needed to show the point. */
describe("what the check finds", () => {
  const check = (files: Record<string, string>) => findViolations(new Map(Object.entries(files)), AREAS);

  test.each<[string, Record<string, string>, string[]]>([
    [
      "nothing in a good project",
      {
        "errors.ts": "export const a = 1;",
        "nar/hash.ts": 'import { a } from "../errors.ts";\nimport { createHash } from "node:crypto";',
        "nar/dump.ts": 'import fs from "node:fs";\nimport type { H } from "./hash.ts";',
        "cache/entry.ts": 'import * as hash from "../nar/hash.ts";\nexport { d } from "../oci/digest.ts";',
        "oci/digest.ts": "",
        "publish/publish.ts": 'import { dump } from "../nar/dump.ts";',
        "main.ts": 'import "./publish/publish.ts";\nimport p from "../package.json";\nprocess.env.HOME;',
      },
      [],
    ],
    [
      "an arrow from layer 0 to layer 1 of the same folder",
      { "nar/hash.ts": 'import { dump } from "./dump.ts";', "nar/dump.ts": "" },
      ["nar/hash.ts imports nar/dump.ts: nar may not import nar adapters"],
    ],
    [
      "an arrow up, of a type, over several lines",
      { "nix/store.ts": 'import type {\n  A,\n  B,\n} from "../publish/plan.ts";', "publish/plan.ts": "" },
      ["nix/store.ts imports publish/plan.ts: nix may not import publish"],
    ],
    [
      "an arrow up in a re-export",
      { "oci/digest.ts": 'export * from "../main.ts";', "main.ts": "" },
      ["oci/digest.ts imports main.ts: oci may not import command line"],
    ],
    [
      "a dynamic import",
      { "serve/handler.ts": 'await import("../commands/serve.ts");', "commands/serve.ts": "" },
      ["serve/handler.ts imports commands/serve.ts: serve may not import command line"],
    ],
    [
      "nar and oci, which do not know each other",
      {
        "nar/hash.ts": 'import { d } from "../oci/digest.ts";',
        "oci/digest.ts": "",
        "oci/registry.ts": 'import { n } from "../nar/narinfo.ts";',
        "nar/narinfo.ts": "",
      },
      [
        "nar/hash.ts imports oci/digest.ts: nar may not import oci",
        "oci/registry.ts imports nar/narinfo.ts: oci adapters may not import nar",
      ],
    ],
    [
      "use cases that import each other",
      { "serve/handler.ts": 'import { p } from "../publish/plan.ts";', "publish/plan.ts": "" },
      ["serve/handler.ts imports publish/plan.ts: serve may not import publish"],
    ],
    [
      "the environment below layer 3",
      {
        "publish/a.ts": "const home = process.env.HOME;",
        "nix/b.ts": "const home = Bun.env.HOME;",
        "serve/c.ts": 'import { env } from "node:process";',
        "oci/d.ts": 'const e = process["env"];',
        "config.ts": "const home = process.env.HOME;",
      },
      ["nix/b.ts", "oci/d.ts", "publish/a.ts", "serve/c.ts"].map(
        (file) => `${file}: only layer 3 reads the environment`,
      ),
    ],
    [
      "I/O modules in layer 0",
      {
        "nar/a.ts": 'import { open } from "node:fs/promises";',
        "cache/b.ts": 'import type { Database } from "bun:sqlite";',
        "errors.ts": 'import { spawn } from "child_process";',
        "cache/database.ts": 'import { Database } from "bun:sqlite";',
      },
      [
        "cache/b.ts imports bun:sqlite: cache is pure",
        "errors.ts imports child_process: base is pure",
        "nar/a.ts imports node:fs/promises: nar is pure",
      ],
    ],
    [
      "the network, the clock, chance and files in layer 0, but not their names elsewhere",
      {
        "nar/a.ts": "await fetch(url);",
        "nar/b.ts": "const now = Date.now();",
        "nar/c.ts": "const now = new Date();",
        "nar/d.ts": "Math.random();",
        "nar/e.ts": "await Bun.file(name).text();",
        "nar/fine.ts":
          'host.fetch(url); prefetch(x); new Date(5); "Date.now"; // Date.now()\nthis.#fetch(x);',
        "nix/store.ts": "Date.now(); fetch(url);",
      },
      [
        "nar/a.ts: nar is pure, and it uses fetch",
        "nar/b.ts: nar is pure, and it uses Date.now",
        "nar/c.ts: nar is pure, and it uses new Date()",
        "nar/d.ts: nar is pure, and it uses Math.random",
        "nar/e.ts: nar is pure, and it uses Bun.file",
      ],
    ],
    [
      "a cycle inside one area",
      {
        "nix/a.ts": 'import "./b.ts";',
        "nix/b.ts": 'import type { C } from "./c.ts";',
        "nix/c.ts": 'import { a } from "./a.ts";',
      },
      ["nix/c.ts imports nix/a.ts: a cycle, nix/a.ts → nix/b.ts → nix/c.ts → nix/a.ts"],
    ],
    [
      "a file that the table does not know",
      { "helpers/misc.ts": 'import "../main.ts";', "main.ts": "" },
      ["helpers/misc.ts: it belongs to no area; add it to the table"],
    ],
    [
      "an import of what is not there",
      { "main.ts": 'import "./gone.ts";' },
      ["main.ts imports gone.ts: there is no such source"],
    ],
    [
      "nothing in comments and texts",
      {
        "nar/a.ts":
          '// import "../main.ts";\n/* process.env */\nconst url = "https://x//y"; const text = "fetch(";',
        "main.ts": "",
      },
      [],
    ],
  ])("%s", (_, files, expected) => {
    expect(check(files)).toEqual(expected);
  });
});

test("what the check of the table finds", () => {
  const area = (name: string, layer: Area["layer"], ...mayImport: string[]): Area => {
    return { name, layer, files: [], mayImport };
  };
  expect(
    checkTable([area("a", 0, "b"), area("b", 1, "a", "c"), area("d", 2, "e"), area("e", 2, "d")]),
  ).toEqual([
    "a may import b, which is above it",
    "b and a may import each other",
    "b may import c, which is no area",
    "d and e may import each other",
    "e and d may import each other",
  ]);
});
