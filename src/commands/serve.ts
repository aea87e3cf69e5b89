import { cacheReference, indexTtlMs, type ListenAddress, listenAddress, upstreamUrls } from "../config.ts";
import { openCache, openUpstreams } from "../context.ts";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import { serveCache } from "../serve/cache.ts";
import { createHandler } from "../serve/handler.ts";
import { MemoryBudget } from "../serve/memory.ts";
import { VERSION } from "../version.ts";
import { cacheArgs, command } from "./command.ts";

export const serve = command(
  { name: "serve", description: "Answer Nix on this machine from a cache, with upstream caches behind it" },
  {
    ...cacheArgs("Pass on what this cache has"),
    port: { type: "string", valueHint: "PORT", description: "Port to listen on, 0 for any free one (37515)" },
    listen: { type: "string", valueHint: "ADDRESS", description: "Address to listen on (127.0.0.1)" },
    "index-ttl": { type: "string", valueHint: "SECONDS", description: "Refresh the index this often (300)" },
  },
  async (given, context) => {
    const { env, log } = context;
    const address = listenAddress({ listen: given.text("listen"), port: given.text("port") }, env);
    const ttlMs = indexTtlMs(given.text("index-ttl"), env);
    const upstreams = openUpstreams(upstreamUrls(given.texts("upstream"), env));
    using open = openCache(cacheReference(given.text("cache"), env), "read", context);
    const onError = (message: string) => log.warn(message);
    const cache = serveCache(open.protocol, (message) =>
      log.warn(`the index could not be refreshed: ${message}`),
    );
    const handler = createHandler({
      cache,
      upstreams,
      onError,
      memory: new MemoryBudget(),
      underWay: () => server.pendingRequests,
      status: () => {
        const refreshedAt = cache.refreshedAt();
        return {
          version: VERSION,
          repo: cache.store.name,
          upstream: upstreams.map(({ url }) => url),
          index_loaded: cache.isLoaded(),
          index_entries: cache.view.count(),
          index_generations: cache.view.generations().length,
          index_generated: refreshedAt === undefined ? null : new Date(refreshedAt).toISOString(),
          index_ttl: ttlMs / 1000,
          index_error: cache.lastError() ?? null,
        };
      },
    });
    const server = listen(address, handler);
    context.print(`listening on http://${urlHost(address.hostname)}:${server.port}`);
    try {
      await cache.keepFresh(ttlMs);
    } finally {
      await server.stop(true);
    }
  },
);

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
