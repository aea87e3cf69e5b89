/**
 * Closures for tests, built by the real Nix: many small paths of every kind that real packages have.
 *
 * The same seed gives the same paths. Of ten paths about four are texts (`builtins.toFile`, content-addressed,
 * instant), one is a source tree (`builtins.path`), and five are built (10 ms each).
 */
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { lines, shellDerivation } from "./derivation.ts";
import type { TestNix } from "./nix.ts";

export interface ClosureOptions {
  /** How many paths, 1 or more. */
  paths: number;
  /** A path's contents, name and references follow from it. */
  seed: number;
  /** Bytes of one file of zeros, sparse on disk, in one of the paths. Default: no such path. */
  big?: number;
}

export interface TestClosure {
  /** The path that refers to all others, directly or not. */
  readonly root: string;
  /** All paths, the root among them, in Nix's order. */
  readonly paths: readonly string[];
  /** The path with the big file. */
  readonly big: string | undefined;
}

export async function buildClosure(nix: TestNix, options: ClosureOptions): Promise<TestClosure> {
  const random = mulberry32(options.seed);
  const prefix = `t${options.seed}`;
  const sources = join(nix.folder, `sources-${prefix}`);
  await mkdir(sources, { recursive: true });

  const nodes: Node[] = [];
  const unused = new Set<string>();
  const add = (node: Node): void => {
    nodes.push(node);
    for (const reference of node.references) unused.delete(reference);
    unused.add(node.variable);
  };
  const small = options.paths - 1 - (options.big === undefined ? 0 : 1);
  for (let index = 0; index < small; index++) {
    const name = `${prefix}-${index}`;
    const kind = random();
    if (kind < 0.4) add(textNode(index, name, nodes, random));
    else if (kind < 0.5) add(await sourceNode(index, name, sources, random));
    else add(builtNode(index, name, nodes, random));
  }
  if (options.big !== undefined) add(bigNode(`${prefix}-big`, options.big));

  const bindings = nodes.map((node) => `  ${node.variable} = ${node.expression};`).join("\n");
  const links = [...unused].map((variable) => `ln -s \${${variable}} $out/${variable}`).join("\n");
  const root = await nix.build(
    `let\n${bindings}\nin ${shellDerivation(`${prefix}-root`, `mkdir $out\n${links}`)}`,
  );
  const paths = lines(await nix.run("nix-store", ["--query", "--requisites", root]));
  if (paths.length !== options.paths) {
    throw new Error(`built a closure of ${paths.length} paths instead of ${options.paths}`);
  }
  return { root, paths, big: paths.find((path) => path.endsWith(`-${prefix}-big`)) };
}

interface Node {
  readonly variable: string;
  readonly expression: string;
  readonly references: readonly string[];
  readonly isText: boolean;
}

type Random = () => number;

/** Texts can refer to texts only: Nix wants to know their content before anything is built. */
function textNode(index: number, name: string, nodes: readonly Node[], random: Random): Node {
  const references = pick(
    nodes.filter((node) => node.isText),
    random,
  );
  const body = [randomText(random, 2_000), ...references.map((variable) => `\${${variable}}`)].join("\\n");
  return node(index, `builtins.toFile "${name}.txt" "${body}\\n"`, references, true);
}

/** A folder with an executable, links, an empty file and an empty folder, and names that are not ASCII. */
async function sourceNode(index: number, name: string, folder: string, random: Random): Promise<Node> {
  const path = join(folder, String(index));
  await mkdir(join(path, "empty"), { recursive: true });
  await mkdir(join(path, "bin"));
  await writeFile(join(path, "bin", "run"), `#!/bin/sh\necho ${randomText(random, 50)}\n`, { mode: 0o755 });
  await writeFile(join(path, "nothing"), "");
  await writeFile(join(path, "Grüße 世界"), randomText(random, 5_000));
  await symlink("../nothing", join(path, "bin", "relative"));
  await symlink("/does/not/exist", join(path, "dangling"));
  return node(index, `builtins.path { name = "${name}-source"; path = ${path}; }`, [], false);
}

function builtNode(index: number, name: string, nodes: readonly Node[], random: Random): Node {
  const references = pick(nodes, random);
  const text = randomText(random, 4_000);
  const [first] = references;
  const kind = random();
  let script: string;
  if (kind < 0.15 && first !== undefined) {
    return node(index, shellDerivation(name, `ln -s \${${first}} $out`), [first], false);
  }
  if (kind < 0.4) {
    const uses = references.map((variable) => `# \${${variable}}`).join("\n");
    script = `printf '#!/bin/sh\\n%s\\n' 'echo ${text}' > $out\ncat >> $out <<END\n${uses}\nEND\nchmod +x $out`;
  } else {
    script = [
      "mkdir -p $out/bin $out/share/doc $out/var/empty $out/lib",
      `printf '#!/bin/sh\\necho %s\\n' '${text.slice(0, 40)}' > $out/bin/${name}`,
      `chmod +x $out/bin/${name}`,
      `echo '${text}' > "$out/share/doc/read me"`,
      // A byte that is no UTF-8: names are bytes.
      `: > "$out/share/$(printf 'odd-\\377')"`,
      `ln -s ../bin/${name} $out/lib/program`,
      ...references.map((variable) => `ln -s \${${variable}} $out/lib/${variable}`),
      random() < 0.3 ? "echo $out > $out/share/self" : "",
    ].join("\n");
  }
  return node(index, shellDerivation(name, script), references, false);
}

function bigNode(name: string, bytes: number): Node {
  const script = `mkdir $out\ntruncate -s ${bytes} $out/zeros\necho end >> $out/zeros`;
  return { variable: "big", expression: shellDerivation(name, script), references: [], isText: false };
}

function node(index: number, expression: string, references: readonly string[], isText: boolean): Node {
  return { variable: `p${index}`, expression, references, isText };
}

/** Up to three different nodes. */
function pick(nodes: readonly Node[], random: Random): string[] {
  const picked = new Set<string>();
  const wanted = Math.floor(random() * 4);
  for (let count = 0; count < wanted; count++) {
    const found = nodes[Math.floor(random() * nodes.length)];
    if (found !== undefined) picked.add(found.variable);
  }
  return [...picked];
}

/** Up to `most` letters and digits, which need no quoting in Nix or in a shell. */
function randomText(random: Random, most: number): string {
  const digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  let text = "";
  for (let left = 1 + Math.floor(random() * most); left > 0; left--)
    text += digits[Math.floor(random() * 62)];
  return text;
}

/** A small generator of numbers in [0, 1) that a seed determines (Tommy Ettinger's mulberry32). */
function mulberry32(seed: number): Random {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
