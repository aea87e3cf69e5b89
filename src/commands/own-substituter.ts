/**
 * Our own cache as a substituter for a build of ours: serve's handler in this process, on a loopback port that Nix
 * is told of by NIX_CONFIG. Nix's configuration stays as it is.
 */
import { randomBytes } from "node:crypto";
import type { Context, OpenCache } from "../context.ts";
import { messageOf } from "../errors.ts";
import { formatPublicKey, publicKeyOf } from "../nar/signing-key.ts";
import type { Environment } from "../nix/location.ts";
import { mayBeUnsigned } from "../protocol/sign.ts";
import { type ServedCache, serveCache } from "../serve/cache.ts";
import { createGuard } from "../serve/guard.ts";
import { createHandler } from "../serve/handler.ts";
import { MemoryBudget } from "../serve/memory.ts";
import { watchRegistry } from "../serve/registry-watch.ts";
import { Traffic } from "../serve/traffic.ts";
import { createUpstreams } from "../serve/upstreams.ts";
import { withoutProxyForLoopback } from "../system/proxy.ts";
import { listen, serverUrl } from "./listen.ts";
import type { Trusted } from "./trust.ts";

const ADDRESS = { hostname: "127.0.0.1", port: 0 } as const;

/** Nix sends no bodies when it reads. */
const MAX_BODY_BYTES = 1024;

/** As serve has it by default. */
const CONNECTIONS = 4;

export interface OwnSubstituter extends AsyncDisposable {
  /** For Nix's commands. What is in it is a secret, which other users of the machine would find among arguments. */
  readonly env: Environment;
}

/**
 * Only what `key` has signed is taken, and what the person's own configuration trusts: who can write into the cache
 * could name any key there. A cache that cannot be read is no reason not to build; publishing will say what is wrong.
 * Where it was never read Nix is told nothing of it, since it would ask for seconds.
 *
 * @param open the cache to read from; the caller disposes of it
 */
export async function ownSubstituter(
  open: (trust: Trusted) => OpenCache,
  trust: Trusted,
  context: Context,
): Promise<OwnSubstituter> {
  const { host, env } = context;
  const onError = (message: string) => context.log.warn(message);
  const load = async ({ protocol }: OpenCache): Promise<ServedCache> => {
    const store = { ...protocol.store, ...watchRegistry(protocol.store, { host, onError }) };
    const loading = serveCache({ ...protocol, store }, () => {});
    await loading.refresh().catch((error) => {
      context.signal.throwIfAborted();
      onError(`builds cannot ask ${protocol.store.name} for what it has now: ${messageOf(error)}`);
    });
    return loading;
  };
  const signed = open(trust);
  let cache = await load(signed);
  // Of a cache that was there before generations were signed Nix still takes what the key has signed, path by path.
  if (mayBeUnsigned(signed.protocol)) cache = await load(open({ ...trust, keys: undefined }));
  if (!cache.isLoaded()) return { env, async [Symbol.asyncDispose]() {} };
  const key = trust.signer && publicKeyOf(trust.signer);
  const upstreams = createUpstreams([], { host, onError, key: randomBytes(32), trusted: [] });
  const handler = createHandler({
    caches: [cache],
    guard: createGuard(ADDRESS),
    upstreams,
    onError,
    memory: new MemoryBudget(),
    connections: CONNECTIONS,
    traffic: new Traffic(),
    clock: () => performance.now(),
    sleep: host.sleep,
    underWay: () => server.pendingRequests,
    status: () => ({}),
    metrics: () => "",
  });
  // Nobody else on this machine can guess it, and a private cache is read by whoever asks at the port. Besides Nix
  // remembers by URL what a cache had and had not, and ports come back.
  const prefix = `/${randomBytes(16).toString("hex")}`;
  const server = listen(ADDRESS, (request) => handler(behind(prefix, request)), MAX_BODY_BYTES);
  const url = serverUrl(ADDRESS, server) + prefix;
  const settings = [
    env.NIX_CONFIG ?? "",
    `extra-substituters = ${url}`,
    ...(key === undefined ? [] : [`extra-trusted-public-keys = ${formatPublicKey(key)}`]),
  ];
  return {
    env: {
      ...env,
      NIX_CONFIG: settings.join("\n"),
      // A proxy's 127.0.0.1 is another one.
      ...withoutProxyForLoopback(env),
    },
    async [Symbol.asyncDispose]() {
      await server.stop(true);
      upstreams.close();
    },
  };
}

/** The request as if the server's root were at `prefix`. */
function behind(prefix: string, request: Request): Request {
  const url = new URL(request.url);
  const path = url.pathname.startsWith(`${prefix}/`) ? url.pathname.slice(prefix.length) : "/absent";
  const { method, headers, signal } = request;
  return new Request(url.origin + path + url.search, { method, headers, signal });
}
