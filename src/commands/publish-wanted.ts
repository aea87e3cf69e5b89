/** What a person wants to be published: paths, outputs to be built, or what a command of theirs builds. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { splitWords } from "../build/attribute-path.ts";
import { defaultFlake } from "../build/discover.ts";
import { type DerivationName, parseDerivation, parseInstallable } from "../build/installable.ts";
import { readNames, type Unusable } from "../build/names.ts";
import { flakeReference, type OutputsRequest } from "../build/request.ts";
import { evalMemory } from "../config.ts";
import type { Context } from "../context.ts";
import { availableMemory } from "../system/memory.ts";
import { type Arguments, usageError } from "./command.ts";

export const WANTED_ARGS = {
  "what…": {
    type: "positional",
    required: false,
    valueHint: "PATH",
    description: "Store paths, links to them such as ./result, or what is to be built, such as nixpkgs#hello",
  },
  stdin: {
    type: "boolean",
    description:
      "Read paths, or what is to be built, from standard input as well: words, or JSON that Nix prints",
  },
  flake: {
    type: "string",
    valueHint: "FLAKE",
    description: "Build the outputs of this flake (./config, where nothing else is named)",
  },
  outputs: {
    type: "string",
    valueHint: "NAMES…",
    description:
      "Outputs of the flake, or attribute paths, with spaces between them (packages nixosConfigurations devShells)",
  },
  file: { type: "string", valueHint: "FILE", description: "Build what a Nix file gives that is no flake" },
  attr: { type: "string", alias: "A", valueHint: "ATTR…", description: "Of the file only this attribute" },
  include: {
    type: "string",
    valueHint: "PATTERN…",
    description: "Only attributes like this, such as packages.*.foo",
  },
  exclude: { type: "string", valueHint: "PATTERN…", description: "No attributes like this" },
  "eval-memory": {
    type: "string",
    valueHint: "SIZE",
    description: "Memory for evaluations together (three quarters of what is free)",
  },
  strict: { type: "boolean", description: "Fail for attributes that cannot be evaluated" },
  watch: {
    type: "boolean",
    description: "Publish while building; `--watch -- COMMAND…` publishes what a command builds",
  },
} as const;

/** What is named beside a flake or a file, by arguments or on standard input. */
export interface NamedThings {
  /** Store paths, or links to them. */
  readonly names: readonly string[];
  /** What was listed and names nothing that could be published. */
  readonly unusable: readonly Unusable[];
}

export type Wanted =
  | { readonly kind: "command"; readonly argv: readonly string[] }
  | ({ readonly kind: "paths" } & NamedThings)
  | ({
      readonly kind: "outputs";
      readonly requests: readonly OutputsRequest[];
      /** Of which outputs are to be built. */
      readonly derivations: readonly DerivationName[];
      /** Bytes for evaluations together. */
      readonly evalMemory: number;
      readonly strict: boolean;
      readonly watch: boolean;
    } & NamedThings);

/** @param cwd what flakes and files are relative to. @throws `usage` */
export async function readWanted(given: Arguments, context: Context, cwd: string): Promise<Wanted> {
  const watch = given.flag("watch");
  const argv = given.behindDashes;
  if (argv !== undefined) {
    const others = ["flake", "file", "outputs", "attr", "include", "exclude"].some((name) =>
      given.texts(name),
    );
    if (
      !watch ||
      argv.length === 0 ||
      given.positionals.length > argv.length ||
      others ||
      given.flag("dry-run")
    ) {
      throw usageError("--watch takes a command behind --, with neither outputs, paths nor --dry-run");
    }
    return { kind: "command", argv };
  }
  const source = readSource(given, cwd);
  const listed = await readListed(given, source !== undefined, context, cwd);
  const words = [...given.positionals.filter((text) => text !== ""), ...listed.names];
  const paths = words.filter((text) => parseInstallable(text) === undefined);
  const derivations = paths.flatMap((text) => parseDerivation(text) ?? []);
  const names = paths.filter((text) => parseDerivation(text) === undefined);
  const things = { names, unusable: listed.unusable };
  const isNothing = source === undefined && words.length === 0 && listed.unusable.length === 0;
  const requests = isNothing
    ? defaultRequest(given, cwd)
    : [...(source ? [source] : []), ...readInstallables(words, cwd)];
  if (requests.length + derivations.length === 0) {
    if (isNothing) {
      throw usageError(
        "publish needs something to publish: a PATH, FLAKE#NAME, --flake, or paths on standard input",
      );
    }
    const own = ["outputs", "attr", "include", "exclude"].find((name) => given.texts(name) !== undefined);
    if (own !== undefined) throw usageError(`--${own} is for what is built, not for paths`);
    if (watch) throw usageError("--watch takes outputs, such as --flake ./config, or a command behind --");
    return { kind: "paths", ...things };
  }
  if (watch && given.flag("dry-run")) throw usageError("--watch and --dry-run exclude each other");
  const strict = given.flag("strict") || requests.some(({ named }) => named);
  const evalMemory = readEvalMemory(given, context);
  return { kind: "outputs", requests, derivations, ...things, evalMemory, strict, watch };
}

/** @throws `usage` */
export function readEvalMemory(given: Arguments, { env }: Pick<Context, "env">): number {
  return evalMemory(given.text("eval-memory"), availableMemory(), env);
}

/** What --flake or --file names. */
function readSource(given: Arguments, cwd: string): OutputsRequest | undefined {
  const [flake, file] = [given.text("flake"), given.text("file")];
  if (flake !== undefined && file !== undefined) throw usageError("--flake and --file exclude each other");
  if (file === undefined && given.texts("attr"))
    throw usageError("--attr is for --file; for flakes see --outputs");
  if (flake === undefined && file === undefined) return undefined;
  if (given.positionals.length > 0 || given.flag("stdin")) {
    throw usageError(`--${flake === undefined ? "file" : "flake"} and paths exclude each other`);
  }
  if (flake !== undefined) return flakeRequest(given, flakeReference(flake, cwd));
  if (given.texts("outputs")) throw usageError("--outputs is for --flake; for files see --attr");
  return { source: { file: file ?? "" }, ...patterns(given), ...outputs(given.texts("attr")) };
}

function readInstallables(words: readonly string[], cwd: string): OutputsRequest[] {
  const found = words.flatMap((text) => parseInstallable(text) ?? []);
  const byFlake = Map.groupBy(found, ({ flake }) => flakeReference(flake, cwd));
  return [...byFlake].map(([flake, list]) => {
    return { source: { flake }, outputs: list.map(({ attribute }) => attribute), named: true };
  });
}

const NOTHING: NamedThings = { names: [], unusable: [] };

/** What standard input lists, where it was asked for or nothing else is given. */
async function readListed(
  given: Arguments,
  hasSource: boolean,
  context: Context,
  cwd: string,
): Promise<NamedThings> {
  const isAsked = given.flag("stdin");
  if (!isAsked && (hasSource || given.positionals.length > 0)) return NOTHING;
  const input = context.probeStdin();
  if (!isAsked && input === "none") return NOTHING;
  if (input === "open") context.log.info("reading from standard input what to publish");
  const text = await context.readStdin();
  return readNames(text, (name) => existsSync(resolve(cwd, name)));
}

function defaultRequest(given: Arguments, cwd: string): OutputsRequest[] {
  const flake = given.flag("stdin") ? undefined : defaultFlake(cwd);
  return flake === undefined ? [] : [flakeRequest(given, flake)];
}

export function flakeRequest(given: Arguments, flake: string): OutputsRequest {
  return { source: { flake }, ...patterns(given), ...outputs(given.texts("outputs")?.flatMap(splitWords)) };
}

function outputs(names: readonly string[] | undefined): Pick<OutputsRequest, "outputs"> {
  return names && names.length > 0 ? { outputs: names } : {};
}

function patterns(given: Arguments): Pick<OutputsRequest, "include" | "exclude"> {
  const [include, exclude] = [given.texts("include"), given.texts("exclude")];
  return { ...(include && { include }), ...(exclude && { exclude }) };
}
