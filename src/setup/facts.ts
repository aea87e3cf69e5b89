/** What the checks of a set-up ask the machine, each thing once. */
import type { IndexReader } from "../cache/index-reader.ts";
import { messageOf } from "../errors.ts";
import type { Host } from "../host.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import type { RunCommand } from "../nix/command.ts";
import { type NixConfiguration, readConfiguration, readVersion } from "../nix/configuration.ts";
import type { Environment } from "../nix/location.ts";
import { readTrust, type Trust } from "../nix/trust.ts";
import { type CacheReference, formatReference } from "../oci/reference.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { refresh } from "../protocol/refresh.ts";
import { once } from "./check.ts";
import { type Answerer, type Ask, probe } from "./probe.ts";
import { type FoundKeys, findKeys } from "./trusted-keys.ts";

export interface World {
  readonly reference: CacheReference;
  /** Where serve is, or should be; without a slash at the end. */
  readonly url: string;
  readonly run: RunCommand;
  readonly env: Environment;
  /** One request to where serve should be; redirects come back as they are. */
  readonly ask: Ask;
  readonly host: Host;
  /** Fires when it has taken too long. */
  readonly signal: AbortSignal;
  /** The cache and its local index; what is opened is closed by whoever made the function. */
  readonly openCache: () => ProtocolContext;
  /** Keys that the person has named; they are taken in the place of those that the cache names. */
  readonly givenKeys: readonly PublicKey[];
  /** For temporary files. */
  readonly folder: string;
  /** What starts serve there. */
  readonly serveCommand: string;
  /** What makes Nix ask there. */
  readonly useCommand: string;
}

export interface Index {
  readonly view: IndexReader;
  /** Why it may be old: the cache could not be read just now. */
  readonly error: Error | undefined;
}

export interface Facts extends World {
  /** As one writes it on a command line. */
  readonly cacheName: string;
  version(): Promise<string | undefined>;
  configuration(): Promise<NixConfiguration>;
  trust(): Promise<Trust>;
  answerer(): Promise<Answerer>;
  index(): Promise<Index>;
  foundKeys(): Promise<FoundKeys>;
  /** Those that the cache is signed by. */
  keys(): Promise<readonly PublicKey[]>;
}

export function factsOf(world: World): Facts {
  const { run, env, signal, url } = world;
  const index = once(() => readIndex(world));
  const foundKeys = once(async () => findKeys((await index()).view.publishes()));
  return {
    ...world,
    cacheName: formatReference(world.reference),
    version: once(() => readVersion(run, env, signal)),
    configuration: once(() => readConfiguration(run, env, { of: "user", signal })),
    trust: once(() => readTrust(run, env, signal)),
    answerer: once(() => probe(url, world.ask, signal)),
    index,
    foundKeys,
    keys: async () => {
      if (world.givenKeys.length > 0) return world.givenKeys;
      return (await foundKeys()).keys.map(({ key }) => key);
    },
  };
}

async function readIndex({ openCache }: World): Promise<Index> {
  const protocol = openCache();
  let error: Error | undefined;
  try {
    await refresh(protocol, { list: true });
  } catch (cause) {
    error = cause instanceof Error ? cause : new Error(messageOf(cause));
  }
  return { view: protocol.database.view, error };
}
