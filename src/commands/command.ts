/**
 * A command: its help, its strict arguments, its run.
 *
 * citty has the commands and their help, but takes unknown flags in silence and lets the last of repeated ones
 * win. So what the user typed is read here, by the same definitions.
 */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { type ArgsDef, type CommandDef, defineCommand } from "citty";
import { DEFAULT_UPSTREAM } from "../config.ts";
import type { Context } from "../context.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { Described } from "../manual/command-spec.ts";

export interface Arguments {
  /** Those behind `--` too. */
  readonly positionals: readonly string[];
  /** What stands behind `--`; undefined where there is none. */
  readonly behindDashes: readonly string[] | undefined;
  /** The value of a flag given at most once. */
  text(name: string): string | undefined;
  /** The values of a flag that may be repeated; undefined when it was not given. */
  texts(name: string): string[] | undefined;
  flag(name: string): boolean;
}

/** Flags of every command. */
const COMMON_ARGS: ArgsDef = {
  verbose: { type: "boolean", description: "Show the cause of an error, with its stack" },
};

/** The flags that say which cache, and which caches are upstream of it. */
export function cacheArgs(upstreamDescription: string) {
  return {
    cache: {
      type: "string",
      valueHint: "REF",
      description: "The cache: HOST/NAME, OWNER/REPO for GHCR, or a folder",
    },
    upstream: {
      type: "string",
      valueHint: "URL…",
      description: `${upstreamDescription}; "" for none (${DEFAULT_UPSTREAM})`,
    },
  } as const satisfies ArgsDef;
}

/** A positional whose name ends so takes any number of arguments, a flag whose hint ends so any number of values. */
const MANY = "…";

/** What citty runs, and the manual describes. */
export type Command = CommandDef & Described;

export function command(
  meta: { name: string; description: string },
  ownArgs: ArgsDef,
  run: (given: Arguments, context: Context) => Promise<void> | void,
): Command {
  const args: ArgsDef = { ...ownArgs, ...COMMON_ARGS };
  const definition = defineCommand({
    meta,
    args,
    run: ({ rawArgs, data }) => run(readArguments(rawArgs, args), data as Context),
  });
  return { ...definition, meta, args };
}

/** @throws `usage` for unknown and repeated flags, missing values, and more arguments than the command takes. */
export function readArguments(raw: readonly string[], args: ArgsDef): Arguments {
  const options: NonNullable<ParseArgsConfig["options"]> = {};
  let mostPositionals = 0;
  for (const [name, def] of Object.entries(args)) {
    if (def.type === "positional") mostPositionals += name.endsWith(MANY) ? Number.POSITIVE_INFINITY : 1;
    else {
      const short = "alias" in def && typeof def.alias === "string" ? { short: def.alias } : {};
      options[name] = { type: def.type === "boolean" ? "boolean" : "string", multiple: true, ...short };
    }
  }
  const { values, positionals, tokens } = parse(raw, options);
  const dashes = tokens.find(({ kind }) => kind === "option-terminator")?.index;
  const isMany = (name: string) => (args[name] as { valueHint?: string }).valueHint?.endsWith(MANY) === true;
  const lists = new Map<string, (string | boolean)[]>();
  for (const [name, value] of Object.entries(values)) {
    const list = [value ?? []].flat();
    if (list.length > 1 && !isMany(name)) throw usageError(`--${name} is given more than once`);
    lists.set(name, list);
  }
  const tooMany = positionals[mostPositionals];
  if (tooMany !== undefined) throw usageError(`unexpected argument ${JSON.stringify(tooMany)}`);
  return {
    positionals,
    behindDashes: dashes === undefined ? undefined : raw.slice(dashes + 1),
    text: (name) => lists.get(name)?.[0] as string | undefined,
    texts: (name) => lists.get(name) as string[] | undefined,
    flag: (name) => lists.get(name)?.[0] === true,
  };
}

function parse(raw: readonly string[], options: NonNullable<ParseArgsConfig["options"]>) {
  try {
    return parseArgs({ args: [...raw], options, strict: true, allowPositionals: true, tokens: true });
  } catch (cause) {
    const message = messageOf(cause);
    const [, flag] = /^Option '(--[^' ]+)[^']*' argument (?:missing|is ambiguous)/.exec(message) ?? [];
    if (flag !== undefined) throw usageError(`${flag} needs a value`, cause);
    // Node's message goes on with advice about its own API after the first sentence.
    throw usageError(message.split(/\.\s|\n/)[0] ?? "", cause);
  }
}

export function usageError(message: string, cause?: unknown): NixcacheError {
  return new NixcacheError("usage", message, { hint: "Run it with --help to see what it takes.", cause });
}
