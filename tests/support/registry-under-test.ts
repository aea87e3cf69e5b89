/** A registry that is asked questions and published to: a real one, or a double that answers as one. */
import type { Host } from "../../src/host.ts";
import { openRegistry } from "../../src/oci/registry.ts";
import type { Store } from "../../src/oci/store.ts";
import type { Cli } from "./cli.ts";

export interface RegistryUnderTest {
  readonly name: string;
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Who may write; undefined where everybody may. */
  readonly user: { readonly name: string; readonly password: string } | undefined;
}

/** A store on a repository, with patience and no faults. */
export function openStoreOn({ host, user }: RegistryUnderTest, repository: string, clock: Host): Store {
  const credentials = async () =>
    user === undefined
      ? undefined
      : ({ kind: "password", username: user.name, password: user.password } as const);
  return openRegistry({ kind: "registry", scheme: "http", host, repository }, { host: clock, credentials });
}

/** Leaves credentials for hosts as `docker login` does. */
export async function logInTo(
  cli: Cli,
  user: { readonly name: string; readonly password: string } | undefined,
  hosts: readonly string[],
): Promise<void> {
  if (user === undefined) return;
  const auth = btoa(`${user.name}:${user.password}`);
  const auths = Object.fromEntries(hosts.map((host) => [host, { auth }]));
  await Bun.write(cli.path("home", ".docker", "config.json"), JSON.stringify({ auths }));
}
