import { type Described, describeCommands } from "../manual/command-spec.ts";
import { exitStatuses } from "../manual/exit-status.ts";
import { manPage } from "../manual/man-page.ts";
import { DATE, VERSION } from "../version.ts";
import { type Command, command } from "./command.ts";
import { PROGRAM } from "./completions.ts";

export const DESCRIPTION = "Turns any GitHub repository into a Nix binary cache";

/** @param of the version that is described */
export function manualText(
  commands: Readonly<Record<string, Described>>,
  of: { readonly version: string; readonly date: string },
): string {
  return manPage({
    ...of,
    program: PROGRAM,
    description: DESCRIPTION,
    commands: describeCommands(commands),
    exitStatuses: exitStatuses(),
  });
}

/** @param commands all of them, also this one */
export function man(commands: () => Readonly<Record<string, Described>>): Command {
  return command({ name: "man", description: "Print the man page, such as for man -l -" }, {}, (_, context) =>
    context.print(manualText(commands(), { version: VERSION, date: DATE }).trimEnd()),
  );
}
