/** The outputs of a flake as they are now, evaluated and not built, for gc to take as the newest generation. */
import { flakeReference } from "../build/request.ts";
import type { Context } from "../context.ts";
import { NixcacheError } from "../errors.ts";
import type { CurrentOutputs } from "../gc/current.ts";
import { runCommand } from "../nix/command.ts";
import { openNixStore } from "../nix/store.ts";
import { configuredStore } from "../nix/store-setting.ts";
import { type Arguments, usageError } from "./command.ts";
import { discoverAll, openLines, originOf, rootsOfTarget } from "./publish-outputs.ts";
import { flakeRequest, readEvalMemory, WANTED_ARGS } from "./publish-wanted.ts";

export const CURRENT_ARGS = {
  "roots-from": {
    type: "string",
    valueHint: "DIR",
    description:
      "Take the outputs of this flake as they are now for the newest generation; needs Nix, builds nothing",
  },
  outputs: {
    ...WANTED_ARGS.outputs,
    description: "Of that flake these outputs, with spaces between them: as they are published",
  },
  include: WANTED_ARGS.include,
  exclude: WANTED_ARGS.exclude,
  "eval-memory": WANTED_ARGS["eval-memory"],
} as const;

/** @throws `usage`; `nix-store` when the flake cannot be evaluated */
export async function readCurrent(given: Arguments, context: Context): Promise<CurrentOutputs | undefined> {
  const flake = given.text("roots-from");
  if (flake === undefined) {
    const own = ["outputs", "include", "exclude", "eval-memory"].find(
      (name) => given.texts(name) !== undefined,
    );
    if (own !== undefined) throw usageError(`--${own} is for the flake that --roots-from names`);
    return undefined;
  }
  const cwd = process.cwd();
  const wanted = {
    requests: [flakeRequest(given, flakeReference(flake, cwd))],
    ...{ derivations: [], names: [], evalMemory: readEvalMemory(given, context) },
  };
  const storeRoot = await configuredStore(runCommand, context.env, context.signal);
  const store = openNixStore({ storeRoot, env: context.env });
  const lines = openLines(context);
  const discovery = await discoverAll(wanted, { store, storeRoot }, context, cwd, lines).finally(() =>
    lines.done(),
  );
  for (const { attribute, reason } of discovery.broken)
    context.log.warn(`${attribute} cannot be evaluated, so nothing is held for it: ${reason}`);
  const [missing] = discovery.missing;
  if (missing !== undefined) {
    throw new NixcacheError("build", `${flake} has no ${missing.attribute}: ${missing.reason}`, {
      hint: "Correct the name. Nothing was deleted, as what it was meant to keep would be among it.",
    });
  }
  const { repository, ...origin } = await originOf(wanted, context, cwd);
  const outputs = discovery.targets.flatMap((target) => {
    const known = Object.entries(target.outputs).flatMap(([name, path]) =>
      path === null ? [] : [[name, path] as const],
    );
    if (known.length < Object.keys(target.outputs).length)
      context.log.warn(
        `${target.attribute} has paths that are known once it is built, so nothing is held for them`,
      );
    return rootsOfTarget({ target, outputs: Object.fromEntries(known) });
  });
  return { outputs, origin, repository };
}
