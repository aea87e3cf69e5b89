/**
 * The commands as completions and the man page describe them, read off the definitions by which arguments are read.
 *
 * What a value is follows from its hint: `FILE` and `PATH` are files, `DIR` and the like folders, `a|b|c` one of these
 * words. `…` at the end means any number.
 */
import type { ArgsDef } from "citty";

/** The part of a command's definition that is described. */
export interface Described {
  readonly meta: { readonly name: string; readonly description: string };
  readonly args: ArgsDef;
}

/** What a shell offers for a value. */
export type Values = "anything" | "file" | "folder" | readonly string[];

export interface Positional {
  /** Such as `SECRET-FILE`. */
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  readonly many: boolean;
  readonly values: Values;
}

export interface Flag {
  /** Without dashes. */
  readonly name: string;
  /** One letter. */
  readonly short: string | undefined;
  readonly description: string;
  readonly many: boolean;
  /** Undefined for a flag that is given or not. */
  readonly value: { readonly hint: string; readonly values: Values } | undefined;
}

export interface CommandSpec {
  readonly name: string;
  readonly description: string;
  readonly positionals: readonly Positional[];
  readonly flags: readonly Flag[];
}

const MANY = "…";

const FILES = new Set(["FILE", "PATH"]);
/** A cache or a flake may be a folder; what else they may be no shell can list. */
const FOLDERS = new Set(["DIR", "ROOT", "REF", "FLAKE"]);

const HELP: Flag = {
  name: "help",
  short: "h",
  description: "Show what the command takes",
  many: false,
  value: undefined,
};

export function describeCommands(commands: Readonly<Record<string, Described>>): CommandSpec[] {
  return Object.values(commands).map(describeCommand);
}

/** What any of them may be: which one is being typed would need all flags before it to be read. */
export function joined(positionals: readonly Positional[]): Values {
  const all = positionals.map(({ values }) => values);
  return all.find((values) => values !== "anything") ?? "anything";
}

function describeCommand({ meta, args }: Described): CommandSpec {
  const positionals: Positional[] = [];
  const flags: Flag[] = [];
  for (const [name, arg] of Object.entries(args)) {
    const description = arg.description ?? "";
    const hint = arg.valueHint ?? "";
    if (arg.type === "positional") {
      const many = name.endsWith(MANY);
      const shown = name.replace(MANY, "").toUpperCase();
      const required = arg.required !== false;
      positionals.push({ name: shown, description, required, many, values: valuesOf(hint) });
      continue;
    }
    const short = "alias" in arg && typeof arg.alias === "string" ? arg.alias : undefined;
    const value =
      arg.type === "boolean" ? undefined : { hint: bare(hint) || "VALUE", values: valuesOf(hint) };
    flags.push({ name, short, description, many: hint.endsWith(MANY), value });
  }
  return { ...meta, positionals, flags: [...flags, HELP] };
}

function valuesOf(hint: string): Values {
  const kind = bare(hint);
  if (kind.includes("|")) return kind.split("|");
  if (FILES.has(kind)) return "file";
  return FOLDERS.has(kind) ? "folder" : "anything";
}

function bare(hint: string): string {
  return hint.replace(MANY, "");
}
