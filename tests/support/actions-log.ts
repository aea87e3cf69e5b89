/**
 * What GitHub's runner makes of a step's output: commands in either form, unless they are stopped. After
 * `src/Runner.Common/ActionCommand.cs` of https://github.com/actions/runner.
 */

export interface RunnerCommand {
  readonly name: string;
  readonly properties: Readonly<Record<string, string>>;
  readonly message: string;
}

const NAMES = ["error", "warning", "notice", "debug", "group", "endgroup", "add-mask", "add-matcher"];
const OLD_NAMES = [
  "set-output",
  "save-state",
  "set-env",
  "add-path",
  "echo",
  "stop-commands",
  "remove-matcher",
];

/** The commands that the runner would carry out, in order. */
export function readCommands(output: string): RunnerCommand[] {
  const known = new Set([...NAMES, ...OLD_NAMES]);
  const commands: RunnerCommand[] = [];
  let token: string | undefined;
  for (const line of output.split("\n")) {
    const command = parseCommand(line, token === undefined ? known : new Set([...known, token]));
    if (command === undefined) continue;
    if (token !== undefined) {
      if (command.name === token) token = undefined;
    } else if (command.name === "stop-commands") {
      token = command.message;
    } else commands.push(command);
  }
  if (token !== undefined) throw new Error("the output ends with commands stopped");
  return commands;
}

function parseCommand(line: string, known: ReadonlySet<string>): RunnerCommand | undefined {
  const [, info, message] = /^\s*::(.*?)::(.*)$/s.exec(line) ?? [];
  const name = info?.split(" ", 1)[0] ?? "";
  if (info !== undefined && known.has(name)) {
    return {
      name,
      properties: properties(info.slice(name.length), ","),
      message: unescapeData(message ?? ""),
    };
  }
  const [, oldInfo, oldMessage] = /##\[(.*?)\](.*)$/s.exec(line) ?? [];
  const oldName = oldInfo?.split(" ", 1)[0] ?? "";
  if (oldInfo === undefined || !known.has(oldName)) return undefined;
  const message2 = unescapeData(oldMessage ?? "");
  return { name: oldName, properties: properties(oldInfo.slice(oldName.length), ";"), message: message2 };
}

function properties(text: string, separator: string): Record<string, string> {
  const pairs = text
    .trim()
    .split(separator)
    // One without a value is none to the runner.
    .filter((pair) => /=./s.test(pair));
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf("=");
      return [
        pair.slice(0, at),
        unescapeData(
          pair
            .slice(at + 1)
            .replaceAll("%3A", ":")
            .replaceAll("%2C", ","),
        ),
      ];
    }),
  );
}

function unescapeData(text: string): string {
  return text.replaceAll("%0D", "\r").replaceAll("%0A", "\n").replaceAll("%25", "%");
}
