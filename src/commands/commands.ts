/** All commands, in the order in which help lists them. */
import type { Command } from "./command.ts";
import { completions } from "./completions.ts";
import { gc } from "./gc.ts";
import { keygen } from "./keygen.ts";
import { man } from "./man.ts";
import { publish } from "./publish.ts";
import { serve } from "./serve.ts";
import { verify } from "./verify.ts";

export const commands: Readonly<Record<string, Command>> = {
  serve,
  publish,
  verify,
  gc,
  keygen,
  completions: completions(() => commands),
  man: man(() => commands),
};
