import { cacheReferences, indexTtlMs, type ListenAddress, listenAddress, upstreamUrls } from "../config.ts";
import { openCache, openUpstreams } from "../context.ts";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { type ServedCache, serveCache } from "../serve/cache.ts";
import { createHandler } from "../serve/handler.ts";
import { MemoryBudget } from "../serve/memory.ts";
import { createUpstreams } from "../serve/upstreams.ts";
import type { Upstream } from "../upstream/client.ts";
import { VERSION } from "../version.ts";
import { cacheArgs, command } from "./command.ts";

export const serve = command(
  { name: "serve", description: "Answer Nix on this machine from a cache, with upstream caches behind it" },
  {
    ...cacheArgs("Pass on what this cache has"),
    cache: {
      type: "string",
      valueHint: "REF…",
      description: "A cache: HOST/NAME, OWNER/REPO for GHCR, or a folder; the first that has a path answers",
    },
    port: { type: "string", valueHint: "PORT", description: "Port to listen on, 0 for any free one (37515)" },
    listen: { type: "string", valueHint: "ADDRESS", description: "Address to listen on (127.0.0.1)" },
    "index-ttl": { type: "string", valueHint: "SECONDS", description: "Refresh the index this often (300)" },
  },
  async (given, context) => {
    const { env, log } = context;
    const address = listenAddress({ listen: given.text("listen"), port: given.text("port") }, env);
    const ttlMs = indexTtlMs(given.text("index-ttl"), env);
    const upstreams = openUpstreams(upstreamUrls(given.texts("upstream"), env));
    using open = new DisposableStack();
    const caches = cacheReferences(given.texts("cache"), env).map((reference) => {
      const { protocol } = open.use(openCache(reference, "read", context));
      return serveCache(protocol, (message) => log.warn(`the index could not be refreshed: ${message}`));
    });
    const onError = (message: string) => log.warn(message);
    const handler = createHandler({
      caches,
      upstreams: createUpstreams(upstreams, onError),
      onError,
      memory: new MemoryBudget(),
      underWay: () => server.pendingRequests,
      status: () => status(caches, upstreams, ttlMs),
    });
    const server = listen(address, handler);
    context.print(`listening on http://${urlHost(address.hostname)}:${server.port}`);
    try {
      await Promise.all(caches.map((cache) => cache.keepFresh(ttlMs)));
    } finally {
      await server.stop(true);
    }
  },
);

/** The fields of the first cache stand at the top, where users of one cache look for them. */
function status(
  caches: readonly ServedCache[],
  upstreams: readonly Upstream[],
  ttlMs: number,
): Record<string, unknown> {
  const each = caches.map((cache) => {
    const refreshedAt = cache.refreshedAt();
    return {
      repo: cache.store.name,
      index_loaded: cache.isLoaded(),
      index_entries: cache.view.count(),
      index_generations: cache.view.generations().length,
      index_generated: refreshedAt === undefined ? null : new Date(refreshedAt).toISOString(),
      index_error: cache.lastError() ?? null,
    };
  });
  return {
    version: VERSION,
    upstream: upstreams.map(({ url }) => url),
    index_ttl: ttlMs / 1000,
    ...each[0],
    caches: each,
  };
}

function listen(
  { hostname, port }: ListenAddress,
  fetch: (request: Request) => Response | Promise<Response>,
) {
  try {
    return Bun.serve({
      hostname,
      port,
      // Bun's own idle time-out cuts clients that pause while they write to disk.
      idleTimeout: 0,
      // Else a second server on the port would be no error, and the kernel would deal requests out to both.
      reusePort: false,
      maxRequestBodySize: 64 * 1024,
      development: false,
      fetch,
    });
  } catch (cause) {
    const taken = systemCode(cause) === "EADDRINUSE";
    throw new NixcacheError(
      "listen",
      `cannot listen on ${hostname}:${port}: ${taken ? "the port is taken" : messageOf(cause)}`,
      {
        hint: taken
          ? "Stop the other server, or choose another port with --port (0 takes any free one)."
          : "Choose an address of this machine with --listen.",
        cause,
      },
    );
  }
}

function urlHost(hostname: string): string {
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}
