/**
 * What a list on standard input names: words, or the JSON that a command of Nix has printed, of whatever version.
 *
 *     nix build --json            [{drvPath, outputs: {NAME: PATH | null}}], or {path} for what is no derivation
 *     nix path-info --json        [{path, valid}], from 2.19 on {PATH: INFO | null}, from 2.33 on {info: …, version}
 *     nix derivation show         {DRV: {outputs: {NAME: {path}}}}, lately {derivations: …, version}
 *     nix flake archive --json    {path, inputs: {NAME: …}}
 *     nix-eval-jobs               one {drvPath, outputs} a line
 */
import { NixcacheError, preview } from "../errors.ts";
import { isBaseName, STORE_DIR } from "../nar/store-path.ts";
import { splitWords } from "./attribute-path.ts";

export interface Unusable {
  readonly name: string;
  /** A sentence without its full stop. */
  readonly reason: string;
}

export interface NameList {
  /** As a person would write them: store paths, links, installables. */
  readonly names: readonly string[];
  /** What is listed and names nothing that could be published. */
  readonly unusable: readonly Unusable[];
}

/**
 * @param exists whether a file has this name: one with blanks is told from several words by it
 * @throws `usage` when it is JSON of none of these shapes
 */
export function readNames(text: string, exists: (name: string) => boolean): NameList {
  const list = new List();
  const json = /^\s*[[{"]/.test(text) ? parseJson(text) : undefined;
  if (json) list.addAll(json.value);
  else if (text.includes("\0")) list.names.push(...text.split("\0").filter((name) => name.trim() !== ""));
  else for (const line of text.split("\n")) addLine(line.trim(), list, exists);
  return list;
}

function addLine(line: string, list: List, exists: (name: string) => boolean): void {
  const json = /^[[{"]/.test(line) ? parseJson(line) : undefined;
  if (json) list.addAll(json.value);
  else if (/^[[{]/.test(line)) throw wrong(line);
  else if (line !== "" && exists(line)) list.names.push(line);
  else for (const word of splitWords(line)) list.names.push(unquote(word));
}

function parseJson(text: string): { value: unknown } | undefined {
  try {
    return { value: JSON.parse(text) };
  } catch {
    return undefined;
  }
}

/** A JSON string among words. */
function unquote(word: string): string {
  const json = word.startsWith('"') ? parseJson(word) : undefined;
  return typeof json?.value === "string" ? json.value : word;
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

class List implements NameList {
  readonly names: string[] = [];
  readonly unusable: Unusable[] = [];

  addAll(value: unknown): void {
    if (typeof value === "string") this.#add(value);
    else if (Array.isArray(value)) for (const item of value) this.addAll(item);
    else if (isFields(value)) this.#addFields(value);
    else throw wrong(value);
  }

  #addFields(value: Fields): void {
    const keyed = "version" in value ? (value.info ?? value.derivations) : undefined;
    if (isFields(keyed)) this.#addKeyed(keyed);
    else if (isFields(value.outputs))
      this.#addOutputs(String(value.drvPath ?? "a derivation"), value.outputs);
    else if (typeof value.path === "string") this.#addPath(value.path, value);
    else this.#addKeyed(value);
  }

  #addPath(path: string, fields: Fields): void {
    if (fields.valid === false) this.#refuse(path, "it is not valid in the Nix store");
    else this.#add(path);
    if (isFields(fields.inputs)) for (const input of Object.values(fields.inputs)) this.addAll(input);
  }

  /** By store path, or base name of one. */
  #addKeyed(paths: Fields): void {
    for (const [path, fields] of Object.entries(paths)) {
      const isPath = isBaseName(path.slice(path.lastIndexOf("/") + 1));
      if (!isPath || (fields !== null && !isFields(fields))) throw wrong(paths);
      if (fields === null) this.#refuse(path, "it is not valid in the Nix store");
      else if (isFields(fields.outputs)) this.#addOutputs(path, fields.outputs);
      else this.#addPath(path, fields);
    }
  }

  #addOutputs(derivation: string, outputs: Fields): void {
    for (const [name, output] of Object.entries(outputs)) {
      const path = isFields(output) ? (output.path ?? null) : output;
      if (typeof path === "string") this.#add(path);
      else if (path === null)
        this.#refuse(`${derivation}^${name}`, "its path is not known before it is built");
      else throw wrong(outputs);
    }
  }

  #add(name: string): void {
    this.names.push(isBaseName(name) ? `${STORE_DIR}/${name}` : name);
  }

  #refuse(name: string, reason: string): void {
    this.unusable.push({ name, reason });
  }
}

function wrong(found: unknown): NixcacheError {
  return new NixcacheError(
    "usage",
    `standard input: got ${preview(found)}, expected paths, or what \`nix build --json\` or \`nix path-info --json\` prints`,
  );
}
