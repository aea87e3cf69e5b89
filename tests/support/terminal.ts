/** The compiled binary on a terminal: standard output and error are one screen of so many columns. */
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import type { Cli, Variables } from "./cli.ts";

export interface Screenful {
  readonly code: number;
  /** Everything that was written, with colours and all. */
  readonly text: string;
  /** The lines as a person reads them. */
  readonly lines: readonly string[];
}

export async function runOnScreen(
  cli: Cli,
  args: readonly string[],
  { columns = 80, env = {} }: { columns?: number; env?: Variables } = {},
): Promise<Screenful> {
  const variables = { ...cli.env, TERM: "xterm-256color", ...env };
  const decoder = new TextDecoder();
  let text = "";
  const child = Bun.spawn([join(ROOT, "dist", "nixcache"), ...args], {
    cwd: cli.path("cwd"),
    env: Object.fromEntries(Object.entries(variables).filter(([, value]) => value !== undefined)),
    terminal: {
      cols: columns,
      rows: 50,
      data: (_, bytes) => {
        text += decoder.decode(bytes, { stream: true });
      },
    },
  });
  const code = await child.exited;
  child.terminal?.close();
  return { code, text, lines: Bun.stripANSI(text).split(/\r?\n/) };
}
