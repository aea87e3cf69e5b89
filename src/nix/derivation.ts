/**
 * The outputs of a derivation, from its file in the store.
 *
 * The file is a term of its own format: `Derive([("out","/nix/store/…","",""),…],…)`, outputs sorted by name.
 * https://nix.dev/manual/nix/latest/protocols/derivation-aterm
 */
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { messageOf, NixcacheError } from "../errors.ts";

/**
 * Output paths by name; null where the path is known after the build alone: of content-addressed derivations that are
 * not fixed, of impure ones, and of what depends on either.
 *
 * @param text the file.
 * @param drvPath for errors.
 * @throws `nix-store` when it is no derivation.
 */
export function parseOutputs(text: string, drvPath: string): Record<string, string | null> {
  const outputs = outputTerms(text, drvPath).map(([name, path]) => [name, path === "" ? null : path]);
  return Object.fromEntries(outputs);
}

/** Name, path and hash of each output. */
function outputTerms(text: string, drvPath: string): [name: string, path: string, hash: string][] {
  const list =
    /^(?:Derive|DrvWithVersion\("[^"]*",)\(?\[((?:\("[^"\\]*","[^"\\]*","[^"\\]*","[^"\\]*"\),?)+)\]/.exec(
      text,
    )?.[1];
  if (list === undefined) {
    throw new NixcacheError("nix-store", `${drvPath}: expected a derivation that begins with its outputs`);
  }
  const all = list.matchAll(/\("([^"]*)","([^"]*)","[^"]*","([^"]*)"\)/g);
  return [...all].map(([, name = "", path = "", hash = ""]) => [name, path, hash]);
}

/**
 * Whether it is built anew each time: its outputs say so where others have their hash.
 *
 * @param file where the derivation's file is.
 * @throws `nix-store` when its file cannot be read, or is no derivation.
 */
export async function isImpure(file: string, drvPath: string): Promise<boolean> {
  return outputTerms(await readDerivation(file, drvPath), drvPath).some(([, , hash]) => hash === "impure");
}

/** All outputs of a derivation in the store, as `parseOutputs`. @throws `nix-store` also when its file cannot be read */
export async function readOutputsOf(file: string, drvPath: string): Promise<Record<string, string | null>> {
  return parseOutputs(await readDerivation(file, drvPath), drvPath);
}

function readDerivation(file: string, drvPath: string): Promise<string> {
  return readFile(file, "utf8").catch((cause: unknown) => {
    throw new NixcacheError("nix-store", `cannot read ${drvPath}: ${messageOf(cause)}`, { cause });
  });
}

/**
 * Output paths of a derivation in the store; none when its file cannot be read, or they are not known before the build.
 *
 * @param file where the derivation's file is.
 * @throws `nix-store` when it is no derivation.
 */
export function readOutputs(file: string, drvPath: string): string[] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return [];
  }
  return Object.values(parseOutputs(text, drvPath)).filter((path) => path !== null);
}
