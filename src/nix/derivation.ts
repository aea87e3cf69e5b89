/**
 * The outputs of a derivation, from its file in the store.
 *
 * The file is a term of its own format: `Derive([("out","/nix/store/…","",""),…],…)`, outputs sorted by name.
 * https://nix.dev/manual/nix/latest/protocols/derivation-aterm
 */
import { readFileSync } from "node:fs";
import { NixcacheError } from "../errors.ts";

/**
 * Output paths by name; without those of floating content-addressed derivations, which are known after the build.
 *
 * @param text the file.
 * @param drvPath for errors.
 * @throws `nix-store` when it is no derivation.
 */
export function parseOutputs(text: string, drvPath: string): Record<string, string> {
  const list =
    /^(?:Derive|DrvWithVersion\("[^"]*",)\(?\[((?:\("[^"\\]*","[^"\\]*","[^"\\]*","[^"\\]*"\),?)+)\]/.exec(
      text,
    )?.[1];
  if (list === undefined) {
    throw new NixcacheError("nix-store", `${drvPath}: expected a derivation that begins with its outputs`);
  }
  const outputs: Record<string, string> = {};
  for (const [, name = "", path = ""] of list.matchAll(/\("([^"]*)","([^"]*)","[^"]*","[^"]*"\)/g)) {
    if (path !== "") outputs[name] = path;
  }
  return outputs;
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
  return Object.values(parseOutputs(text, drvPath));
}
