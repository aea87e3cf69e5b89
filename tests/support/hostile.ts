/** Settings of nixcache for a hostile registry that a test cannot wait for, and credentials for it. */
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import type { Cli, Variables } from "./cli.ts";

/** As often as it takes, hardly waiting: what matters is what is tried again, not how long it takes. */
export const IMPATIENT: Variables = {
  NIXCACHE_RETRY_ATTEMPTS: "30",
  NIXCACHE_RETRY_WAIT: "2ms",
  NIXCACHE_RETRY_MAX_WAIT: "10ms",
  NIXCACHE_RETRY_LIMIT_WAIT: "10ms",
  NIXCACHE_CONNECT_TIMEOUT: "1500ms",
  NIXCACHE_STALL_TIMEOUT: "1500ms",
  NIXCACHE_ANSWER_TIMEOUT: "1500ms",
};

export const USER = { name: "somebody", password: "the-secret-of-somebody" };

/** As `docker login` leaves them. */
export async function logIn(cli: Cli, host: string): Promise<void> {
  const file = cli.path("home", ".docker", "config.json");
  await mkdir(dirname(file), { recursive: true });
  const known = (await Bun.file(file).exists()) ? await Bun.file(file).json() : { auths: {} };
  known.auths[host] = { auth: btoa(`${USER.name}:${USER.password}`) };
  await Bun.write(file, JSON.stringify(known));
}
