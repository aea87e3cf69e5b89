/** Completion for zsh. https://zsh.sourceforge.io/Doc/Release/Completion-System.html */
import type { CommandSpec, Flag, Positional, Values } from "./command-spec.ts";

export function zshCompletions(program: string, commands: readonly CommandSpec[]): string {
  return `#compdef ${program}
# Completion for zsh: put it as _${program} into a folder of $fpath, or source it after compinit.

_${program}() {
  local curcontext="$curcontext" state line
  typeset -A opt_args
  _arguments -C \\
    '(- 1 *)'{-h,--help}'[Show the commands]' \\
    '(- 1 *)'{-v,--version}'[Show the version]' \\
    '1: :->command' \\
    '*:: :->rest'
  case $state in
    command)
      local -a commands=(
${commands.map(({ name, description }) => `        ${quote(`${name}:${escapeText(description)}`)}`).join("\n")}
      )
      _describe -t commands command commands
      ;;
    rest)
      case $words[1] in
${commands.map(branch).join("\n")}
      esac
      ;;
  esac
}

# As a file of $fpath this is the body of the function.
if [[ $funcstack[1] == _${program} ]]; then
  _${program} "$@"
else
  compdef _${program} ${program}
fi
`;
}

function branch({ name, positionals, flags }: CommandSpec): string {
  const specs = [...flags.flatMap(flagSpecs), ...positionals.map(positionalSpec)];
  return `        ${name})
          _arguments -S ${specs.map((spec) => `\\\n            ${quote(spec)}`).join(" ")}
          ;;`;
}

function flagSpecs({ name, short, description, many, value }: Flag): string[] {
  const text = `[${escapeText(description)}]`;
  const long = `--${name}`;
  const message = value === undefined ? "" : `:${escapeText(value.hint)}:${action(value.values)}`;
  // \`=\` and \`+\`: the value may be in the same word or the next one.
  const [equals, plus] = value === undefined ? ["", ""] : ["=", "+"];
  if (short === undefined) return [`${many ? "*" : ""}${long}${equals}${text}${message}`];
  const before = many ? "*" : `(-${short} ${long})`;
  return [`${before}-${short}${plus}${text}${message}`, `${before}${long}${equals}${text}${message}`];
}

function positionalSpec({ name, many, required, values }: Positional): string {
  const message = `${many ? "*" : ""}${required || many ? ":" : "::"}`;
  return `${message}${escapeText(name)}:${action(values)}`;
}

function action(values: Values): string {
  if (values === "anything") return " ";
  if (values === "file") return "_files";
  if (values === "folder") return "_files -/";
  return `(${values.join(" ")})`;
}

/** Within a specification: what would end a message or a description. */
function escapeText(text: string): string {
  return text.replace(/[\\[\]:]/g, "\\$&");
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
