import { publishOrigin } from "../config.ts";
import type { Context } from "../context.ts";
import { TOOL } from "../version.ts";
import { runTheirCommand } from "../watch/command.ts";
import { watchCommand } from "../watch/run.ts";
import { type Arguments, command } from "./command.ts";
import { publishOutputs } from "./publish-outputs.ts";
import { holdingsOf, publishNamed } from "./publish-paths.ts";
import { type Published, tell } from "./publish-report.ts";
import { nixSystem, type PublishSetup, readSetup, SETUP_ARGS } from "./publish-setup.ts";
import { readWanted, WANTED_ARGS, type Wanted } from "./publish-wanted.ts";
import { openWatch } from "./watch.ts";

export const publish = command(
  { name: "publish", description: "Put store paths and their closures, or outputs of a flake, into a cache" },
  { ...WANTED_ARGS, ...SETUP_ARGS, json: { type: "boolean", description: "Print a summary as JSON" } },
  async (given, context) => {
    const started = context.host.now();
    const cwd = process.cwd();
    const setup = await readSetup(given, context);
    const wanted = await readWanted(given, context, cwd);
    const published = await run(wanted, setup, context, cwd);
    tellOfUnread(given, context);
    const elapsedMs = context.host.now() - started;
    tell(published, { ...setup, elapsedMs, json: given.flag("json") }, context);
  },
);

/** At the end: whoever writes may have begun after us. What waits there may be for another program, so it stays. */
function tellOfUnread(given: Arguments, { probeStdin, log }: Context): void {
  const isElsewhere =
    given.positionals.length > 0 || (given.text("flake") ?? given.text("file")) !== undefined;
  if (given.behindDashes !== undefined || given.flag("stdin") || !isElsewhere || probeStdin() !== "data")
    return;
  log.warn("standard input was not read, as there were arguments; --stdin reads it as well");
}

async function run(wanted: Wanted, setup: PublishSetup, context: Context, cwd: string): Promise<Published> {
  switch (wanted.kind) {
    case "paths":
      return await publishNamed(wanted, setup, context);
    case "outputs":
      return { ...(await publishOutputs(wanted, setup, context, cwd)), strict: wanted.strict };
    case "command":
      return await publishCommand(wanted.argv, setup, context);
  }
}

async function publishCommand(
  argv: readonly string[],
  setup: PublishSetup,
  context: Context,
): Promise<Published> {
  const { env, signal } = context;
  const readOnly = await setup.askRights();
  if (readOnly !== undefined) {
    context.stopsItself();
    return { result: undefined, readOnly, exitCode: await runTheirCommand(argv, { env, signal }) };
  }
  const origin = { tool: TOOL, ...publishOrigin(env), system: nixSystem() };
  using watch = openWatch({ ...setup, origin }, context);
  const { exitCode, result } = await watchCommand(argv, env, watch).finally(() => setup.progress.done());
  return { result, holdings: holdingsOf(watch.publish), exitCode };
}
