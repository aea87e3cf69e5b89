/** Completion for fish, from 3.0 on. https://fishshell.com/docs/current/completions.html */
import { type CommandSpec, type Flag, joined, type Values } from "./command-spec.ts";

export function fishCompletions(program: string, commands: readonly CommandSpec[]): string {
  const start = `complete -c ${program}`;
  const main = `-n 'test (count (commandline -opc)) -eq 1'`;
  const lines = commands.flatMap(({ name, description, positionals, flags }) => {
    const here = `${start} -n '__${program}_runs ${name}'`;
    const values = joined(positionals);
    return [
      `${start} ${main} -a ${name} -d ${quote(description)}`,
      ...flags.map((flag) => `${here} ${option(flag)} -d ${quote(flag.description)}`),
      ...(values === "anything" ? [] : [`${here} ${offer(values)}`]),
    ];
  });
  return `# Completion for fish: put it as ${program}.fish into ~/.config/fish/completions, or source it.

function __${program}_runs
    set -l words (commandline -opc)
    test (count $words) -gt 1; and test $words[2] = $argv[1]
end

${start} -f
${start} ${main} -s h -l help -d 'Show the commands'
${start} ${main} -s v -l version -d 'Show the version'
${lines.join("\n")}
`;
}

function option({ name, short, value }: Flag): string {
  const names = `${short === undefined ? "" : `-s ${short} `}-l ${name}`;
  if (value === undefined) return names;
  return value.values === "file" ? `${names} -r -F` : `${names} -x ${offer(value.values)}`.trimEnd();
}

function offer(values: Values): string {
  if (values === "anything") return "";
  if (values === "file") return "-F";
  if (values === "folder") return "-a '(__fish_complete_directories)'";
  return `-a ${quote(values.join(" "))}`;
}

function quote(text: string): string {
  return `'${text.replace(/[\\']/g, "\\$&")}'`;
}
