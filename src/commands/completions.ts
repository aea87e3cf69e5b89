import { bashCompletions } from "../manual/bash.ts";
import { type CommandSpec, type Described, describeCommands } from "../manual/command-spec.ts";
import { fishCompletions } from "../manual/fish.ts";
import { zshCompletions } from "../manual/zsh.ts";
import { type Command, command, usageError } from "./command.ts";

/** The name of the executable. */
export const PROGRAM = "nixcache";

export const COMPLETIONS: Readonly<
  Record<string, (program: string, commands: readonly CommandSpec[]) => string>
> = { bash: bashCompletions, zsh: zshCompletions, fish: fishCompletions };

const SHELLS = Object.keys(COMPLETIONS);

/** @param commands all of them, also this one */
export function completions(commands: () => Readonly<Record<string, Described>>): Command {
  return command(
    { name: "completions", description: "Print the completion for a shell" },
    {
      shell: {
        type: "positional",
        required: true,
        valueHint: SHELLS.join("|"),
        description: `One of ${SHELLS.join(", ")}`,
      },
    },
    (given, context) => {
      const [shell = ""] = given.positionals;
      const complete = Object.hasOwn(COMPLETIONS, shell) ? COMPLETIONS[shell] : undefined;
      if (complete === undefined) throw usageError(`completions needs a shell: ${SHELLS.join(", ")}`);
      context.print(complete(PROGRAM, describeCommands(commands())).trimEnd());
    },
  );
}
