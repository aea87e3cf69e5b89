/** What `use` and `doctor` share: which cache, where it is served, by whom it is signed, and how to find out. */
import { resolve } from "node:path";
import {
  cacheReference,
  clientUrl,
  DEFAULT_PORT,
  retryPolicy,
  spoolDirectory,
  trustedPublicKeys,
} from "../config.ts";
import { type Context, credentialsFor, openCache, systemWeb } from "../context.ts";
import { outward } from "../network/egress.ts";
import { runCommand } from "../nix/command.ts";
import { systemNetwork } from "../oci/network.ts";
import { type CacheReference, formatReference } from "../oci/reference.ts";
import { BRISK } from "../oci/retry.ts";
import { askRegistry, type Registry } from "../oci/rights.ts";
import { once } from "../setup/check.ts";
import { type Facts, factsOf } from "../setup/facts.ts";
import { USER_AGENT } from "../version.ts";
import type { Arguments } from "./command.ts";

export const CLIENT_ARGS = {
  port: { type: "string", valueHint: "PORT", description: `Port of serve on this machine (${DEFAULT_PORT})` },
  url: { type: "string", valueHint: "URL", description: "Where serve answers, if on another machine" },
  "trusted-public-key": {
    type: "string",
    valueHint: "KEY…",
    description: "Trust this key, in place of those that the cache itself names",
  },
} as const;

/** A folder by its whole name: settings are read from anywhere. */
export function wholeReference(given: string | undefined, context: Context): CacheReference {
  const reference = cacheReference(given, context.env);
  return reference.kind === "layout" ? { kind: "layout", path: resolve(reference.path) } : reference;
}

export interface OpenFacts extends Disposable {
  readonly facts: Facts;
  /** Undefined for a cache in a folder. */
  readonly registry: Registry | undefined;
}

/** @param limit fires when questions have taken too long; the index may take longer than that unless `boundIndex` */
export function openFacts(
  given: Arguments,
  reference: CacheReference,
  { limit, boundIndex }: { limit: AbortSignal; boundIndex: boolean },
  context: Context,
): OpenFacts {
  const { env, host } = context;
  const signal = AbortSignal.any([context.signal, limit]);
  const bounded = { ...context, signal };
  const open = new DisposableStack();
  const web = systemWeb(env);
  const url = clientUrl({ url: given.text("url"), port: given.text("port") }, env);
  const { port } = new URL(url);
  const name = formatReference(reference);
  const at = given.text("url") === undefined ? "" : ` --url ${url}`;
  const place = url === `http://127.0.0.1:${DEFAULT_PORT}` ? "" : ` --port ${port || 80}`;
  const facts = factsOf({
    ...{ reference, url, env, host, signal },
    run: runCommand,
    ask: (address, init) =>
      outward(web, new URL(address))(address, { ...init, decompress: false } as RequestInit),
    openCache: () => open.use(openCache(reference, "read", boundIndex ? bounded : context)).protocol,
    // Those of the environment are for who reads the cache, not for Nix.
    givenKeys: trustedPublicKeys(given.texts("trusted-public-key") ?? [], env),
    folder: spoolDirectory(env),
    serveCommand: `nixcache serve --cache ${name}${place}`,
    useCommand: `nixcache use ${name}${at || place}`,
  });
  const credentials = once(credentialsFor(reference, bounded));
  const registry =
    reference.kind === "layout"
      ? undefined
      : askRegistry(reference, {
          ...{ credentials, host, signal, userAgent: USER_AGENT },
          network: systemNetwork(host, signal, web),
          policy: retryPolicy(BRISK, env),
        });
  return { facts, registry, [Symbol.dispose]: () => open[Symbol.dispose]() };
}
