/** What pages say that people shall type, held against the definitions of the commands. */
import type { ArgsDef } from "citty";
import { readArguments } from "../../src/commands/command.ts";
import { commands } from "../../src/commands/commands.ts";
import { messageOf } from "../../src/errors.ts";

function argsOf(name: string): ArgsDef | undefined {
  return Object.hasOwn(commands, name) ? commands[name]?.args : undefined;
}

/** Every flag of every command, as it is typed. */
export function allFlags(): ReadonlySet<string> {
  const flags = new Set(["--help", "--version", "-h", "-v"]);
  for (const name of Object.keys(commands)) {
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
