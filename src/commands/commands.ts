/** All commands, in the order in which help lists them. */
import type { Command } from "./command.ts";
import { completions } from "./completions.ts";
import { copy } from "./copy.ts";
import { diff } from "./diff.ts";
import { doctor } from "./doctor.ts";
import { gc } from "./gc.ts";
import { history } from "./history.ts";
import { init } from "./init.ts";
import { keygen } from "./keygen.ts";
import { list } from "./list.ts";
import { man } from "./man.ts";
import { pin } from "./pin.ts";
import { pins } from "./pins.ts";
import { publish } from "./publish.ts";
import { serve } from "./serve.ts";
import { sign } from "./sign.ts";
import { unpin } from "./unpin.ts";
import { use } from "./use.ts";
import { verify } from "./verify.ts";
import { why } from "./why.ts";

export const commands: Readonly<Record<string, Command>> = {
  serve,
  publish,
  list,
  history,
  diff,
  why,
  verify,
  gc,
  pin,
  unpin,
  pins,
  copy,
  keygen,
  sign,
  use,
  doctor,
  init,
  completions: completions(() => commands),
  man: man(() => commands),
};
