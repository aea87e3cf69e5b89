/** Store paths that the rows about Nix share, built by the real one. */
import { copyFile, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { lines, shellDerivation } from "../tests/support/derivation.ts";
import { buildClosure, type TestNix } from "../tests/support/nix.ts";
import { type Bench, makeFolder } from "./bench.ts";

export interface Paths {
  readonly nix: TestNix;
  readonly root: string;
}

/** A closure of small paths: texts, sources, and what builds give. */
export function smallPaths(bench: Bench): Promise<Paths> {
  return bench.once("small paths", async () => {
    const nix = await bench.nix();
    const { root } = await buildClosure(nix, { paths: bench.size(2_000, 300), seed: 7 });
    return { nix, root };
  });
}

/** A closure of so many paths with so many bytes of real files in all. */
export function realPaths(bench: Bench, count: number, bytes: number): Promise<Paths> {
  return bench.once(`real paths ${count} ${bytes}`, async () => {
    const nix = await bench.nix();
    const folder = await makeFolder(bench, "sources");
    const each = bytes / (count - 1);
    const files = realFiles(bytes, each);
    for (let place = 0; place < count - 1; place++) await copyFiles(files, join(folder, `p${place}`), each);
    const sources = Array.from({ length: count - 1 }, (_, place) => `\${${folder}/p${place}}`);
    const links = sources.map((source, place) => `ln -s ${source} $out/${place}`).join("\n");
    const root = await nix.build(shellDerivation("real", `mkdir $out\n${links}`));
    return { nix, root };
  });
}

/** One path of so many bytes of real files. */
export function largePath(bench: Bench, bytes: number): Promise<Paths> {
  return bench.once(`large path ${bytes}`, async () => {
    const nix = await bench.nix();
    const folder = join(await makeFolder(bench, "large"), "files");
    await copyFiles(realFiles(bytes, bytes), folder, bytes);
    const [root = ""] = lines(await nix.run("nix-store", ["--add", folder]));
    return { nix, root };
  });
}

/** Where the programs, libraries and documents of this machine are. */
const REAL = ["/usr/lib", "/usr/bin", "/usr/share", "/usr/sbin"];

interface RealFile {
  readonly path: string;
  readonly size: number;
}

/** Real files in a fixed order, over again when they do not suffice. @param most bytes of one */
async function* realFiles(bytes: number, most: number): AsyncGenerator<RealFile, void, undefined> {
  let given = 0;
  while (given < bytes) {
    const before = given;
    for (const folder of REAL) {
      for await (const file of filesBelow(folder)) {
        if (file.size > most) continue;
        given += file.size;
        yield file;
      }
    }
    if (given === before) throw new Error(`no files below ${REAL.join(", ")}`);
  }
}

async function* filesBelow(folder: string): AsyncGenerator<RealFile, void, undefined> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) yield* filesBelow(path);
    else if (entry.isFile()) yield { path, size: (await stat(path)).size };
  }
}

async function copyFiles(
  files: AsyncGenerator<RealFile, void, undefined>,
  to: string,
  bytes: number,
): Promise<void> {
  await mkdir(to, { recursive: true });
  for (let [count, copied] = [0, 0]; copied < bytes; count++) {
    const { done, value } = await files.next();
    if (done) return;
    const name = `${count}-${value.path.slice(value.path.lastIndexOf("/") + 1)}`;
    const folder = join(to, String(Math.floor(count / 100)));
    await mkdir(folder, { recursive: true });
    await copyFile(value.path, join(folder, name));
    copied += value.size;
  }
}
