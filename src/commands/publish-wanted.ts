/** What a person wants to be published: paths, outputs to be built, or what a command of theirs builds. */
import { defaultFlake } from "../build/discover.ts";
import { parseInstallable, readNames } from "../build/installable.ts";
import { flakeReference, type OutputsRequest } from "../build/request.ts";
import type { Context } from "../context.ts";
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
    description: "Read paths from standard input: one a line, or the output of nix build --json",
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
  strict: { type: "boolean", description: "Fail for attributes that cannot be evaluated" },
  watch: {
    type: "boolean",
    description: "Publish while building; `--watch -- COMMAND…` publishes what a command builds",
  },
} as const;

export type Wanted =
  | { readonly kind: "command"; readonly argv: readonly string[] }
  | { readonly kind: "paths"; readonly names: readonly string[] }
  | {
      readonly kind: "outputs";
      readonly requests: readonly OutputsRequest[];
      /** Paths besides. */
      readonly names: readonly string[];
      readonly strict: boolean;
      readonly watch: boolean;
    };

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
  const requests = readRequests(given, cwd);
  const names = await readPaths(given, requests.length > 0, context);
  const wanted = requests.length === 0 && names.length === 0 ? defaultRequest(given, cwd) : requests;
  if (wanted.length === 0) {
    if (names.length === 0) {
      throw usageError(
        "publish needs something to publish: a PATH, FLAKE#NAME, --flake, or paths on standard input",
      );
    }
    const own = ["outputs", "attr", "include", "exclude"].find((name) => given.texts(name) !== undefined);
    if (own !== undefined) throw usageError(`--${own} is for what is built, not for paths`);
    if (watch) throw usageError("--watch takes outputs, such as --flake ./config, or a command behind --");
    return { kind: "paths", names };
  }
  if (watch && given.flag("dry-run")) throw usageError("--watch and --dry-run exclude each other");
  const strict = given.flag("strict") || wanted.some(({ named }) => named);
  return { kind: "outputs", requests: wanted, names, strict, watch };
}

function readRequests(given: Arguments, cwd: string): OutputsRequest[] {
  const [flake, file] = [given.text("flake"), given.text("file")];
  if (flake !== undefined && file !== undefined) throw usageError("--flake and --file exclude each other");
  if (file === undefined && given.texts("attr"))
    throw usageError("--attr is for --file; for flakes see --outputs");
  if (flake === undefined && file === undefined) return readInstallables(given, cwd);
  if (given.positionals.length > 0 || given.flag("stdin")) {
    throw usageError(`--${flake === undefined ? "file" : "flake"} and paths exclude each other`);
  }
  if (flake !== undefined) return [flakeRequest(given, flakeReference(flake, cwd))];
  if (given.texts("outputs")) throw usageError("--outputs is for --flake; for files see --attr");
  return [{ source: { file: file ?? "" }, ...patterns(given), ...outputs(given.texts("attr")) }];
}

function readInstallables({ positionals }: Arguments, cwd: string): OutputsRequest[] {
  const found = positionals.flatMap((text) => parseInstallable(text) ?? []);
  const byFlake = Map.groupBy(found, ({ flake }) => flakeReference(flake, cwd));
  return [...byFlake].map(([flake, list]) => {
    return { source: { flake }, outputs: list.map(({ attribute }) => attribute), named: true };
  });
}

async function readPaths(given: Arguments, builds: boolean, context: Context): Promise<string[]> {
  const { positionals } = given;
  if (given.flag("stdin") && positionals.length > 0) throw usageError("--stdin and paths exclude each other");
  if (given.flag("stdin") || (positionals.length === 0 && !builds && context.stdinIsPiped)) {
    return readNames(await context.readStdin());
  }
  return positionals.filter((text) => text !== "" && parseInstallable(text) === undefined);
}

function defaultRequest(given: Arguments, cwd: string): OutputsRequest[] {
  const flake = given.flag("stdin") ? undefined : defaultFlake(cwd);
  return flake === undefined ? [] : [flakeRequest(given, flake)];
}

export function flakeRequest(given: Arguments, flake: string): OutputsRequest {
  const names = given.texts("outputs")?.flatMap((text) => text.split(/\s+/).filter((name) => name !== ""));
  return { source: { flake }, ...patterns(given), ...outputs(names) };
}

function outputs(names: readonly string[] | undefined): Pick<OutputsRequest, "outputs"> {
  return names && names.length > 0 ? { outputs: names } : {};
}

function patterns(given: Arguments): Pick<OutputsRequest, "include" | "exclude"> {
  const [include, exclude] = [given.texts("include"), given.texts("exclude")];
  return { ...(include && { include }), ...(exclude && { exclude }) };
}
