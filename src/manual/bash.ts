/**
 * Completion for bash, from 3.2 (that of macOS) on, without the package bash-completion.
 * https://www.gnu.org/software/bash/manual/html_node/Programmable-Completion.html
 */
import { type CommandSpec, type Flag, joined, type Values } from "./command-spec.ts";

export function bashCompletions(program: string, commands: readonly CommandSpec[]): string {
  const names = commands.map(({ name }) => name).join(" ");
  return `# Completion for bash: source it, or put it where bash-completion looks:
# ~/.local/share/bash-completion/completions/${program}

_${program}_lines() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do COMPREPLY+=("$line"); done
}

_${program}_words() { _${program}_lines < <(compgen -W "$1" -- "$2"); }

# A space behind a folder would be in the way. Older bash has no compopt.
_${program}_paths() {
  compopt -o filenames 2>/dev/null || true
  _${program}_lines < <(compgen "$1" -- "$2")
}

_${program}() {
  local cur=\${COMP_WORDS[COMP_CWORD]} flag=\${COMP_WORDS[COMP_CWORD-1]} word
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    _${program}_words "${names} --help --version" "$cur"
    return
  fi
  # What follows -- belongs to another command.
  for word in "\${COMP_WORDS[@]:2:COMP_CWORD-2}"; do
    if [[ $word == -- ]]; then
      _${program}_paths -f "$cur"
      return
    fi
  done
  # --flag=value arrives as three words, or as two where the value is still empty.
  if [[ $cur == = ]]; then
    cur=
  elif [[ $flag == = && COMP_CWORD -gt 2 ]]; then
    flag=\${COMP_WORDS[COMP_CWORD-2]}
  fi
  case \${COMP_WORDS[1]} in
${commands.map((command) => branch(program, command)).join("\n")}
  esac
}

complete -F _${program} ${program}
`;
}

function branch(program: string, { name, positionals, flags }: CommandSpec): string {
  const byValues = Map.groupBy(
    flags.filter(({ value }) => value !== undefined),
    ({ value }) => reply(program, value?.values ?? "anything"),
  );
  const cases = [...byValues].map(
    ([action, some]) => `        ${some.flatMap(spellings).join(" | ")}) ${action} ;;`,
  );
  const words = flags.map((flag) => `--${flag.name}`).join(" ");
  return `    ${name})
      case $flag in
${cases.map((line) => `${line}\n`).join("")}        *)
          if [[ $cur == -* ]]; then
            _${program}_words "${words}" "$cur"
          else
            ${reply(program, joined(positionals))}
          fi
          ;;
      esac
      ;;`;
}

function spellings({ name, short }: Flag): string[] {
  return short === undefined ? [`--${name}`] : [`--${name}`, `-${short}`];
}

function reply(program: string, values: Values): string {
  if (values === "anything") return ":";
  if (values === "file") return `_${program}_paths -f "$cur"`;
  if (values === "folder") return `_${program}_paths -d "$cur"`;
  return `_${program}_words "${values.join(" ")}" "$cur"`;
}
