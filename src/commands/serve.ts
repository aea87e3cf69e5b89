import {
  cacheReferences,
  connectionCount,
  graceMs,
  indexTtlMs,
  listenAddress,
  logLevel,
  narCache,
  narKeyFile,
  upstreamKeys,
  upstreamUrls,
} from "../config.ts";
import { openCache, openNarCache, openUpstreams } from "../context.ts";
import { PACK_MEMORY } from "../oci/pack-memory.ts";
import type { Store } from "../oci/store.ts";
import { accessLine } from "../serve/access-log.ts";
import { serveCache } from "../serve/cache.ts";
import type { Exchange } from "../serve/exchange.ts";
import { createGuard } from "../serve/guard.ts";
import { createHandler } from "../serve/handler.ts";
import { MemoryBudget } from "../serve/memory.ts";
import { serverMetrics } from "../serve/metrics.ts";
import { openPage } from "../serve/page/open.ts";
import { watchRegistry } from "../serve/registry-watch.ts";
import { serverStatus } from "../serve/status.ts";
import { Traffic } from "../serve/traffic.ts";
import { UpstreamNars } from "../serve/upstream-nars.ts";
import { createUpstreams } from "../serve/upstreams.ts";
import { keptSecret } from "../system/kept-secret.ts";
import { createNotify } from "../system/notify.ts";
import { createLineWriter, LOG_LEVELS, setLevel } from "../terminal/log.ts";
import { VERSION } from "../version.ts";
import { cacheArgs, command } from "./command.ts";
import { listen, serverUrl } from "./listen.ts";
import { AT_ARGS, generationToServe } from "./serve-at.ts";
import { readTrust, requireSigner, TRUST_ARGS } from "./trust.ts";
import { untilStopped } from "./until-stopped.ts";
import { openWriter, uploadKey, WRITABLE_ARGS } from "./writable.ts";

/** Without uploads no request has a body that matters. With them each kind of upload has a bound of its own. */
const MAX_BODY_BYTES = 64 * 1024;

/** How long a registry is waited for that is to say whether uploads can be committed. */
const ASK_WRITE_MS = 1_000;

export const serve = command(
  { name: "serve", description: "Answer Nix on this machine from a cache, with upstream caches behind it" },
  {
    ...cacheArgs("Pass on what this cache has"),
    cache: {
      type: "string",
      valueHint: "REF…",
      description: "A cache: HOST/NAME, OWNER/REPO for GHCR, or a folder; the first that has a path answers",
    },
    "upstream-key": {
      type: "string",
      valueHint: "KEY…",
      description: "Prefer of upstreams what this public key has signed (that of cache.nixos.org)",
    },
    ...TRUST_ARGS,
    port: { type: "string", valueHint: "PORT", description: "Port to listen on, 0 for any free one (37515)" },
    listen: { type: "string", valueHint: "ADDRESS", description: "Address to listen on (127.0.0.1)" },
    "index-ttl": { type: "string", valueHint: "SECONDS", description: "Refresh the index this often (300)" },
    "nar-cache": { type: "string", valueHint: "DIR", description: "Keep on disk what clients have fetched" },
    "nar-cache-size": { type: "string", valueHint: "SIZE", description: "Keep at most this much (20G)" },
    connections: {
      type: "string",
      valueHint: "COUNT",
      description: "Requests at once for one NAR, as storage hosts cap each connection (4)",
    },
    ...AT_ARGS,
    ...WRITABLE_ARGS,
    "allow-host": {
      type: "string",
      valueHint: "NAME…",
      description: "A name by which clients reach this server, such as a proxy's",
    },
    grace: { type: "string", valueHint: "TIME", description: "When stopped, let transfers go on (30s)" },
    "log-level": {
      type: "string",
      valueHint: LOG_LEVELS.join("|"),
      description: `One of ${LOG_LEVELS.join(", ")}, which is a line for each request (info)`,
    },
  },
  async (given, stopping) => {
    const { env, log, host } = stopping;
    const level = logLevel(given.text("log-level"), env);
    const grace = graceMs(given.text("grace"), env);
    setLevel(log, level);
    stopping.stopsItself();
    // What is under way when the signal comes goes on until it is done, or cut.
    const cut = new AbortController();
    const context = { ...stopping, signal: cut.signal };
    const address = listenAddress({ listen: given.text("listen"), port: given.text("port") }, env);
    const ttlMs = indexTtlMs(given.text("index-ttl"), env);
    const connections = connectionCount(given.text("connections"), env);
    const urls = upstreamUrls(given.texts("upstream"), env);
    const upstreams = openUpstreams(urls, env, given.texts("upstream-key"));
    const signers = upstreamKeys(given.texts("upstream-key"), urls, env);
    const kept = narCache({ directory: given.text("nar-cache"), size: given.text("nar-cache-size") }, env);
    await using nars = kept && (await openNarCache(kept, connections, context));
    using open = new DisposableStack();
    const references = cacheReferences(given.texts("cache"), env);
    const key = uploadKey(given, context);
    const trust = readTrust(given, context, key);
    if (given.flag("writable")) requireSigner(trust, "--writable");
    const generation = await generationToServe(given, references, trust, stopping);
    const onError = (message: string) => log.warn(message);
    const before = {
      over: (store: Store) => (nars ?? PACK_MEMORY).over(watchRegistry(store, { host, onError })),
    };
    const caches = references.map((reference) => {
      const { protocol } = open.use(openCache(reference, "read", context, { before, generation, trust }));
      const onStale = (message: string) => log.warn(`the index could not be refreshed: ${message}`);
      return serveCache(protocol, onStale, generation);
    });
    const passing = createUpstreams(upstreams, {
      ...{ host, onError, key: keptSecret(narKeyFile(env)) },
      trusted: upstreams.length < 2 ? [] : [...trust.given, ...signers],
    });
    open.defer(() => passing.close());
    const guard = createGuard({ hostname: address.hostname, allowHosts: given.texts("allow-host") ?? [] });
    await using writing = openWriter(
      given,
      {
        ...{ references, caches, upstreams: passing, guard, hostname: address.hostname, trust },
        upstreamKeys: upstreams.every(({ keys }) => keys?.length) ? signers : [],
      },
      context,
    );
    // A registry that answers is waited for: what it refuses nobody shall upload.
    if (writing)
      await Promise.race([writing.allowed, host.sleep(ASK_WRITE_MS, stopping.signal).catch(() => {})]);
    const traffic = new Traffic();
    const clock = () => performance.now();
    const underWay = () => server.pendingRequests;
    const state = {
      ...{ caches, upstreams: passing, traffic, underWay, ttlMs, now: host.now, startedAt: host.now() },
      narCache: nars && (() => nars.status()),
      writing: writing && (() => writing.status()),
    };
    const writeLine = createLineWriter(process.stderr);
    const watch = (request: Request) => {
      // Once the request is over nobody knows its address any more.
      const client = server.requestIP(request)?.address;
      return (exchange: Exchange) =>
        writeLine(accessLine(request, exchange, client, clock() - exchange.startedMs));
    };
    const shown = { caches, upstreams: () => passing.status(), traffic, version: VERSION, host, onError };
    const page = open.use(openPage(shown));
    const handler = createHandler({
      caches,
      guard,
      page: page.answer,
      writer: writing?.writer,
      upstreams: passing,
      upstreamNars: nars && new UpstreamNars(nars),
      isOnDisk: nars && ((digest) => nars.holds(digest)),
      onError,
      memory: new MemoryBudget(),
      connections,
      traffic,
      clock,
      sleep: host.sleep,
      watch: level === "access" ? watch : undefined,
      underWay,
      status: () => serverStatus(state),
      metrics: () => serverMetrics(state),
    });
    const server = listen(address, handler, writing === undefined ? MAX_BODY_BYTES : Number.MAX_SAFE_INTEGER);
    const url = serverUrl(address, server);
    context.print(`listening on ${url}`);
    if (generation !== undefined) log.info(`serving the cache as it was in ${generation}, and nothing newer`);
    const running = Promise.all([...caches.map((cache) => cache.keepFresh(ttlMs)), writing?.allowed]);
    const asOf = generation === undefined ? "" : `as it was in ${generation} `;
    try {
      const code = await untilStopped({
        ...{ server, running, signal: stopping.signal, graceMs: grace, host, log },
        ready: Promise.all(caches.map((cache) => (cache.isLoaded() ? undefined : cache.tried))),
        description: `serving ${caches.map(({ store }) => store.name).join(", ")} ${asOf}at ${url}`,
        notify: createNotify(env),
      });
      if (code !== 0) context.setExitCode(code);
    } finally {
      await server.stop(true);
      await writing?.close(AbortSignal.timeout(grace));
      cut.abort();
      await running.catch(() => {});
    }
  },
);
