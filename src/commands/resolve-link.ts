/** From a file of this machine to the store path that it is or leads to, in the store that Nix uses. */
import type { Context } from "../context.ts";
import { runCommand } from "../nix/command.ts";
import { locateStore } from "../nix/location.ts";
import { resolveToStorePath } from "../nix/resolve.ts";
import { configuredStore } from "../nix/store-setting.ts";

/** @throws `nix-store` */
export async function resolveLink(path: string, { env, signal }: Context): Promise<string> {
  const cwd = process.cwd();
  const store = await configuredStore(runCommand, env, signal);
  return await resolveToStorePath(path, cwd, locateStore(store, env, cwd));
}
