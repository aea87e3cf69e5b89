/** What pages say that people shall type, held against the definitions of the commands. */
import type { ArgsDef, CommandDef } from "citty";
import { readArguments } from "../../src/commands/command.ts";
import { gc } from "../../src/commands/gc.ts";
import { keygen } from "../../src/commands/keygen.ts";
import { publish } from "../../src/commands/publish.ts";
import { serve } from "../../src/commands/serve.ts";
import { verify } from "../../src/commands/verify.ts";
import { messageOf } from "../../src/errors.ts";

export const COMMANDS: Readonly<Record<string, CommandDef>> = { serve, publish, verify, gc, keygen };

/** Commands that pages describe ahead of the binary. Empty when all is done. */
export const NOT_YET: readonly string[] = [
  ...["use", "doctor", "init", "completions", "man"],
  ...["pin", "unpin", "pins", "copy"],
  ...["list", "history", "diff", "why"],
];

/** Flags of the same kind, behind their command. */
export const FLAGS_NOT_YET: readonly string[] = [
  ...["serve --at", "gc --roots-from", "pin --keep-days", "pin --keep-revisions"],
  ...["use --mode", "use --print", "use --remove", "use --url"],
];

/** Whether a line is about what the binary does not have yet. */
export function isAhead(line: string): boolean {
  return (
    NOT_YET.some((name) => new RegExp(`\\bnixcache ${name}\\b`).test(line)) ||
    FLAGS_NOT_YET.some((text) => {
      const [command, flag = ""] = text.split(" ");
      return new RegExp(`\\bnixcache ${command}\\b`).test(line) && line.includes(flag);
    })
  );
}

export function argsOf(name: string): ArgsDef | undefined {
  return Object.hasOwn(COMMANDS, name) ? (COMMANDS[name]?.args as ArgsDef) : undefined;
}

/** Every flag of every command, as it is typed. */
export function allFlags(): ReadonlySet<string> {
  const flags = new Set(["--help", "--version", "-h", "-v"]);
  for (const name of Object.keys(COMMANDS)) {
    for (const [flag, def] of Object.entries(argsOf(name) ?? {})) {
      if (def.type === "positional") continue;
      flags.add(`--${flag}`);
      if ("alias" in def && typeof def.alias === "string") flags.add(`-${def.alias}`);
    }
  }
  return flags;
}

/** What is wrong with the arguments of nixcache; undefined when it takes them. */
export function complaint(words: readonly string[]): string | undefined {
  const [name = "", ...rest] = words;
  if (["--help", "--version", "help"].includes(name)) return undefined;
  const args = argsOf(name);
  if (args === undefined) return `there is no command ${JSON.stringify(name)}`;
  if (rest.includes("--help")) return undefined;
  try {
    readArguments(rest, args);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/** Words of a line without anything of a shell but quotes. Brackets mark what may be left out. */
export function wordsOf(text: string): string[] {
  return [...text.replaceAll(/[[\]]/g, "").matchAll(/(?:"[^"]*"|'[^']*'|\S)+/g)].map(([word]) =>
    word.replaceAll(/["']/g, ""),
  );
}
