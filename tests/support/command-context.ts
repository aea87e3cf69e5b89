/** What a command is run with, in a test: it prints and logs into lists. */
import { type CommandDef, runCommand } from "citty";
import { StepLog } from "../../src/actions/step-log.ts";
import { type Context, realHost } from "../../src/context.ts";
import { EXIT_CODES, NixcacheError } from "../../src/errors.ts";
import type { Log } from "../../src/terminal/log.ts";
import { TestHost } from "./protocol.ts";

export function commandContext(env: Context["env"] = {}) {
  const printed: string[] = [];
  const logged: string[] = [];
  const stepLines: string[] = [];
  const codes: number[] = [];
  const say = (level: string) => (message: unknown) => void logged.push(`${level}: ${message}`);
  const log = {
    info: say("info"),
    success: say("success"),
    warn: say("warn"),
    error: say("error"),
    level: 3,
  };
  const context: Context = {
    env,
    host: new TestHost(),
    log: log as unknown as Log,
    step:
      env.GITHUB_ACTIONS === "true" ? new StepLog((text) => void stepLines.push(text), "token") : undefined,
    signal: new AbortController().signal,
    terminal: false,
    threads: 1,
    print: (text) => void printed.push(text),
    async printAll(lines) {
      printed.push(...lines);
    },
    readStdin: async () => "",
    probeStdin: () => "none",
    setExitCode: (code) => void codes.push(code),
    stopsItself() {},
  };
  return { context, printed, logged, stepLines, codes };
}

/** Runs a command in this process: its arguments as a person types them, and what it says and ends with. */
export async function runInProcess(
  command: CommandDef,
  args: readonly string[],
  env: Context["env"],
): Promise<{ exitCode: number; printed: string[]; logged: string[]; error: unknown }> {
  const { context, printed, logged, codes } = commandContext(env);
  let error: unknown;
  try {
    await runCommand(command, { rawArgs: [...args], data: { ...context, host: realHost } });
  } catch (thrown) {
    error = thrown;
    codes.push(thrown instanceof NixcacheError ? thrown.exitCode : EXIT_CODES.internal);
  }
  return { exitCode: codes.at(-1) ?? 0, printed, logged, error };
}
