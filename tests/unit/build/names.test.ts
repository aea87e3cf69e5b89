import { describe, expect, test } from "bun:test";
import { readNames, type Unusable } from "../../../src/build/names.ts";
import { storePath } from "../../support/nix-database.ts";

const [A, B, C] = [storePath("a"), storePath("b"), storePath("c")];
const DRV = storePath("d.drv");
const base = (path: string) => path.slice("/nix/store/".length);
const json = (value: unknown) => JSON.stringify(value);
const read = (text: string) => readNames(text, (name) => name === "./a folder/result");

test.each<[string, string, string[]]>([
  ["nothing", "", []],
  ["blanks", " \n\t\n", []],
  ["one path", `${A}\n`, [A]],
  ["lines", "/a\n\n  ./b  \r\n", ["/a", "./b"]],
  ["words", `${A} ${B}\t${C}\n./result`, [A, B, C, "./result"]],
  ["a file whose name has a blank", "./a folder/result\n./b c", ["./a folder/result", "./b", "c"]],
  ["what ends with NULs", `${A}\0./a b\0`, [A, "./a b"]],
  ["installables", 'nixpkgs#hello .#"a b"', ["nixpkgs#hello", '.#"a b"']],
  ["a JSON string", json(A), [A]],
  ["JSON strings, one a line", `${json(A)}\n${json(B)}\n`, [A, B]],
  ["JSON strings with blanks between them", `${json(A)} ${json(B)}`, [A, B]],
  ["a list of strings", json([A, B]), [A, B]],
  ["nix build: derivations", json([{ drvPath: DRV, outputs: { out: A, dev: B } }]), [A, B]],
  ["nix build: what is no derivation", ` [{"path":${json(A)}},${json(B)}]\n`, [A, B]],
  ["nix build: nothing", "[]", []],
  ["nix path-info 2.8", json([{ path: A, narHash: "x", valid: true }, { path: B }]), [A, B]],
  ["nix path-info 2.19", json({ [A]: { narHash: "x" }, [B]: { narHash: "y" } }), [A, B]],
  [
    "nix path-info 2.33",
    json({ version: 2, storeDir: "/nix/store", info: { [base(A)]: { narHash: "x" } } }),
    [A],
  ],
  [
    "nix derivation show",
    json({ [DRV]: { name: "d", outputs: { out: { path: A }, dev: { path: B } } } }),
    [A, B],
  ],
  [
    "nix derivation show, lately",
    json({ version: 4, derivations: { [base(DRV)]: { outputs: { out: { path: base(A) } } } } }),
    [A],
  ],
  [
    "nix flake archive",
    json({ path: A, inputs: { x: { path: B, inputs: { y: { path: C, inputs: {} } } } } }),
    [A, B, C],
  ],
  [
    "nix-eval-jobs",
    `${json({ attr: "a", drvPath: DRV, outputs: { out: A } })}\n${json({ attr: "b", drvPath: DRV, outputs: { out: B } })}\n`,
    [A, B],
  ],
])("%s", (_, text, names) => {
  const list = read(text);
  expect([...list.names]).toEqual(names);
  expect([...list.unusable]).toEqual([]);
});

describe("what cannot be published is told, beside the others", () => {
  const invalid = "it is not valid in the Nix store";
  const unknown = "its path is not known before it is built";
  test.each<[string, string, string[], Unusable[]]>([
    [
      "nix path-info 2.8",
      json([{ path: A, valid: false }, { path: B }]),
      [B],
      [{ name: A, reason: invalid }],
    ],
    ["nix path-info 2.19", json({ [A]: null, [B]: {} }), [B], [{ name: A, reason: invalid }]],
    [
      "nix path-info 2.33",
      json({ version: 2, info: { [base(A)]: null } }),
      [],
      [{ name: base(A), reason: invalid }],
    ],
    [
      "nix build of an unknown output",
      json([{ drvPath: DRV, outputs: { out: null, dev: B } }]),
      [B],
      [{ name: `${DRV}^out`, reason: unknown }],
    ],
    [
      "a content-addressed derivation",
      json({ [DRV]: { outputs: { out: { hashAlgo: "r:sha256" } } } }),
      [],
      [{ name: `${DRV}^out`, reason: unknown }],
    ],
  ])("%s", (_, text, names, unusable) => {
    const list = read(text);
    expect([...list.names]).toEqual(names);
    expect([...list.unusable]).toEqual(unusable);
  });
});

test.each(["[", "{", "[1]", "[null]", '[{"outputs":{"out":1}}]', '{"a":{}}', '{"x":1}', "[{}] x"])(
  "%s is refused",
  (text) => {
    expect(() => read(text)).toThrow(/^standard input: got .*, expected paths, or what/);
  },
);
