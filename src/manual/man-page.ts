/** The man page, in the macros that groff and mandoc both know. https://man.openbsd.org/man.7 */
import type { CommandSpec, Flag, Positional } from "./command-spec.ts";

export interface ManPage {
  readonly program: string;
  /** Without a full stop. */
  readonly description: string;
  readonly version: string;
  /** Of the version, as ISO 8601. */
  readonly date: string;
  readonly commands: readonly CommandSpec[];
  readonly exitStatuses: readonly { readonly code: number; readonly meaning: string }[];
}

export function manPage({ program, description, version, date, commands, exitStatuses }: ManPage): string {
  const lines = [
    `.TH ${program.toUpperCase()} 1 "${date}" ${quote(`${program} ${version}`)} "User Commands"`,
    ".SH NAME",
    `${escapeRoff(program)} \\- ${escapeRoff(lowerFirst(description))}`,
    ".SH SYNOPSIS",
    ...commands.flatMap((command, at) => [...(at === 0 ? [] : [".br"]), synopsis(program, command)]),
    ".SH DESCRIPTION",
    escapeRoff(`${description}: NARs and an index live in an OCI registry, or in a folder.`),
    "What the environment says, and what each command does, is told at length in the project's README.",
    ".SH COMMANDS",
    ...commands.flatMap((command) => section(program, command)),
    ".SH EXIT STATUS",
    ...exitStatuses.flatMap(({ code, meaning }) => [".TP", `.B ${code}`, `${escapeRoff(meaning)}.`]),
  ];
  return `${lines.join("\n")}\n`;
}

function synopsis(program: string, { name, positionals }: CommandSpec): string {
  const words = positionals.map((positional) => ` ${argument(positional)}`);
  return `\\fB${escapeRoff(`${program} ${name}`)}\\fR [\\fIflags\\fR]${words.join("")}`;
}

function argument({ name, required, many }: Positional): string {
  const text = `\\fI${escapeRoff(name)}\\fR${many ? " ..." : ""}`;
  return required ? text : `[${text}]`;
}

function section(program: string, command: CommandSpec): string[] {
  const { name, description, positionals, flags } = command;
  return [
    `.SS ${escapeRoff(name)}`,
    synopsis(program, command),
    ".PP",
    `${escapeRoff(description)}.`,
    ...positionals.flatMap((positional) => [".TP", argument(positional), sentence(positional.description)]),
    ...flags.flatMap((flag) => [".TP", flagLine(flag), sentence(flag.description, flag.many)]),
  ];
}

function flagLine({ name, short, value }: Flag): string {
  const names = [...(short === undefined ? [] : [`-${short}`]), `--${name}`];
  const shown = names.map((text) => `\\fB${escapeRoff(text)}\\fR`).join(", ");
  return value === undefined ? shown : `${shown} \\fI${escapeRoff(value.hint)}\\fR`;
}

function sentence(text: string, many = false): string {
  return `${escapeRoff(text)}.${many ? " May be repeated." : ""}`;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** Dashes are minus signs, so that what is copied from the page is a flag; nothing at the start is a macro. */
function escapeRoff(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/[^\x20-\x7e]/gu, (character) => {
      return `\\[u${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}]`;
    })
    .replace(/^(?=[.'])/, "\\&");
}

function quote(text: string): string {
  return `"${escapeRoff(text).replaceAll('"', '""')}"`;
}
