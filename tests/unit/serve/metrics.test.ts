import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NixcacheError } from "../../../src/errors.ts";
import { serveCache } from "../../../src/serve/cache.ts";
import { Exchange } from "../../../src/serve/exchange.ts";
import { serverMetrics } from "../../../src/serve/metrics.ts";
import { type Family, formatFamilies } from "../../../src/serve/prometheus.ts";
import type { ServerState } from "../../../src/serve/server-state.ts";
import { serverStatus } from "../../../src/serve/status.ts";
import { Traffic } from "../../../src/serve/traffic.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { parsePrometheus } from "../../support/prometheus.ts";
import { commitNames, party } from "../../support/protocol.ts";
import { propertyParameters } from "../../support/seed.ts";
import { reading, testKey } from "../../support/trust.ts";

const UPSTREAM = {
  url: 'https://up"stream\\',
  priority: 40,
  state: "down",
  failures: 3,
  lastError: "it failed",
  retryAt: Date.UTC(2026, 0, 2),
  requests: 10,
  hits: 4,
  misses: 3,
  latency: 250,
} as const;

function stateOf(machine: ReturnType<typeof party>): ServerState {
  return {
    caches: [serveCache(machine, () => {})],
    upstreams: { status: () => [UPSTREAM] },
    traffic: new Traffic(),
    underWay: () => 2,
    ttlMs: 300_000,
    startedAt: machine.host.now() - 90_000,
    now: machine.host.now,
  };
}

describe("metrics", () => {
  test("of a server that has answered nothing are well-formed", () => {
    using machine = party(new MemoryStore());
    const series = parsePrometheus(serverMetrics(stateOf(machine)));
    expect(series.get('nixcache_index_loaded{cache="memory"}')).toBe(0);
    expect(series.has('nixcache_index_age_seconds{cache="memory"}')).toBe(false);
    expect(series.get('nixcache_upstream_up{upstream="https://up\\"stream\\\\"}')).toBe(0);
    expect(series.get('nixcache_upstream_latency_seconds{upstream="https://up\\"stream\\\\"}')).toBe(0.25);
  });

  test("count requests, hits, bytes and times by kind, and tell of the index", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a", "b"]);
    const state = stateOf(machine);
    const [cache] = state.caches;
    await cache?.refresh();
    store.before = () => {
      throw new NixcacheError("unreachable", "down");
    };
    await cache?.refresh().catch(() => {});
    machine.host.time += 60_000;
    for (const [seconds, source, status] of [
      [0.0002, "cache", 200],
      [0.001, "cache", 200],
      [0.3, "upstream", 200],
      [99, "none", 404],
    ] as const) {
      const exchange = new Exchange(state.traffic.of("narinfo"), 0);
      exchange.source = source;
      exchange.bytes = 100;
      exchange.begin(new Response("", { status }), false, seconds * 1000);
    }
    state.traffic.of("status").count(200, "none", 0);
    const series = parsePrometheus(serverMetrics(state));
    expect(Object.fromEntries(series)).toMatchObject({
      'nixcache_http_requests_total{kind="narinfo",status="2xx"}': 3,
      'nixcache_http_requests_total{kind="narinfo",status="4xx"}': 1,
      'nixcache_http_response_bytes_total{kind="narinfo"}': 400,
      'nixcache_http_request_duration_seconds_bucket{kind="narinfo",le="0.001"}': 2,
      'nixcache_http_request_duration_seconds_bucket{kind="narinfo",le="0.1"}': 2,
      'nixcache_http_request_duration_seconds_bucket{kind="narinfo",le="0.5"}': 3,
      'nixcache_http_request_duration_seconds_bucket{kind="narinfo",le="10"}': 3,
      'nixcache_http_request_duration_seconds_bucket{kind="narinfo",le="+Inf"}': 4,
      nixcache_http_requests_in_progress: 2,
      'nixcache_hits_total{kind="narinfo",source="cache"}': 2,
      'nixcache_hits_total{kind="narinfo",source="upstream"}': 1,
      'nixcache_hits_total{kind="narinfo",source="none"}': 1,
      'nixcache_index_entries{cache="memory"}': 2,
      'nixcache_index_generations{cache="memory"}': 1,
      'nixcache_index_refreshes_total{cache="memory",result="ok"}': 1,
      'nixcache_index_refreshes_total{cache="memory",result="failed"}': 1,
    });
    expect(series.get('nixcache_index_age_seconds{cache="memory"}')).toBeGreaterThanOrEqual(60);
    expect(series.has('nixcache_hits_total{kind="status",source="none"}')).toBe(false);
    expect(series.get("process_resident_memory_bytes")).toBeGreaterThan(1e6);
  });

  test("of disk and uploads are there only where they are asked for", () => {
    using machine = party(new MemoryStore());
    const state = stateOf(machine);
    expect(serverMetrics(state)).not.toMatch(/nar_cache|journal_/);
    const narCache = () => ({
      directory: "/x",
      bytes: 5,
      limit: 9,
      blobs: 1,
      hits: 2,
      misses: 3,
      filling: 0,
    });
    const writing = () => ({ pending_paths: 1, pending_bytes: 2, last_commit: null, last_error: "x" });
    const series = parsePrometheus(serverMetrics({ ...state, narCache, writing }));
    expect(series.get("nixcache_nar_cache_bytes")).toBe(5);
    expect(series.get("nixcache_journal_failing")).toBe(1);
  });

  test("of generations that no given key has signed say how many are passed over", async () => {
    const store = new MemoryStore();
    using stranger = party(store);
    await commitNames(stranger, ["a"]);
    using server = reading(store, testKey("own-1"));
    const state = { ...stateOf(server), caches: [serveCache(server, () => {})] };
    await state.caches[0]?.refresh();
    const series = parsePrometheus(serverMetrics(state));
    expect(series.get('nixcache_unsigned_generations{cache="memory"}')).toBe(1);
    expect(serverStatus(state)).toMatchObject({ index_entries: 0, unsigned_generations: 1 });
  });

  test("of one generation alone say which", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const name = await commitNames(machine, ["a"]);
    await commitNames(machine, ["b"]);
    using server = party(store);
    const state = { ...stateOf(machine), caches: [serveCache(server, () => {}, name)] };
    await state.caches[0]?.refresh();
    const series = parsePrometheus(serverMetrics(state));
    const labels = `{cache="memory",generation="${name}"}`;
    expect(series.get(`nixcache_index_generation_info${labels}`)).toBe(1);
    expect(series.get('nixcache_index_entries{cache="memory"}')).toBe(1);
    expect(serverStatus(state)).toMatchObject({ generation: name, index_entries: 1, index_generations: 1 });
    const whole = stateOf(machine);
    expect(serverMetrics(whole)).not.toContain("generation_info");
    expect(serverStatus(whole)).toMatchObject({ generation: null });
  });

  test("labels and help of any text survive", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.double(), (text, value) => {
        const family: Family = {
          name: "a",
          help: `${text}x`,
          type: "gauge",
          samples: [{ labels: { b: text }, value }],
        };
        const [[key = "", parsed] = []] = parsePrometheus(formatFamilies([family]));
        const quoted = key.slice('a{b="'.length, -'"}'.length);
        const back = quoted.replace(/\\(.)/g, (_, sign) => (sign === "n" ? "\n" : sign));
        expect([back, parsed]).toEqual([text, value === 0 ? 0 : value]);
      }),
      propertyParameters(),
    );
  });
});

describe("the reader of the tests refuses", () => {
  test.each([
    ["an end that is none", "# HELP a b\n# TYPE a gauge\na 1"],
    ["a sample without a family", "a 1\n"],
    [
      "a family that comes twice",
      '# HELP a b\n# TYPE a gauge\na 1\n# HELP a b\n# TYPE a gauge\na{x="1"} 1\n',
    ],
    ["a series that comes twice", "# HELP a b\n# TYPE a gauge\na 1\na 1\n"],
    ["a quote in a label", '# HELP a b\n# TYPE a gauge\na{x="""} 1\n'],
    ["a counter without _total", "# HELP a b\n# TYPE a counter\na 1\n"],
    [
      "a histogram that shrinks",
      '# HELP a b\n# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
    ],
    [
      "a histogram without an end",
      '# HELP a b\n# TYPE a histogram\na_bucket{le="1"} 2\na_sum 1\na_count 2\n',
    ],
  ])("%s", (_, text) => {
    expect(() => parsePrometheus(text)).toThrow();
  });
});

describe("the status", () => {
  test("has the fields of nixcache-oci in their types, before and after the first index", async () => {
    using machine = party(new MemoryStore());
    const state = stateOf(machine);
    const known = { index_ttl: 300, repo: "memory", upstream: [UPSTREAM.url] };
    expect(serverStatus(state)).toMatchObject({ ...known, index_entries: 0, index_generated: "unknown" });
    await commitNames(machine, ["a"]);
    await state.caches[0]?.refresh();
    const status = serverStatus(state);
    expect(status).toMatchObject({ ...known, index_entries: 1, index_loaded: true, index_error: null });
    expect(status.index_generated).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    expect(status.uptime).toBeGreaterThanOrEqual(90);
    expect(status.upstreams).toMatchObject([
      { state: "down", last_error: "it failed", retry_at: "2026-01-02T00:00:00Z" },
    ]);
    expect(status.traffic).toEqual({
      requests: 0,
      bytes: 0,
      hits: { cache: 0, journal: 0, disk: 0, upstream: 0, none: 0 },
      under_way: 2,
    });
  });

  test("counts the entries once for each state of the index", async () => {
    using machine = party(new MemoryStore());
    const state = stateOf(machine);
    const [cache] = state.caches;
    await commitNames(machine, ["a"]);
    await cache?.refresh();
    const first = cache?.summary();
    await cache?.refresh();
    expect(cache?.summary()).toBe(first as NonNullable<typeof first>);
    await commitNames(machine, ["b"]);
    await cache?.refresh();
    expect(cache?.summary()).toMatchObject({ entries: 2, generations: 2 });
  });
});

describe("a body that is sent piece by piece", () => {
  const chunk = new Uint8Array(10);

  function exchangeOf() {
    const traffic = new Traffic();
    const ended: Exchange[] = [];
    const exchange = new Exchange(traffic.of("nar"), 0, (one) => ended.push(one));
    return { exchange, ended, bytes: () => traffic.of("nar").bytes };
  }

  test("is counted on its way, and ends with its last byte", async () => {
    const { exchange, ended, bytes } = exchangeOf();
    const source = new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(chunk);
        controller.enqueue(chunk);
        controller.close();
      },
    });
    const response = new Response(exchange.stream(source), { headers: { "content-length": "999" } });
    exchange.begin(response, false, 5);
    expect([ended.length, bytes()]).toEqual([0, 0]);
    expect((await response.bytes()).length).toBe(20);
    expect(ended).toEqual([exchange]);
    expect([exchange.bytes, bytes(), exchange.isCut]).toEqual([20, 20, false]);
  });

  test("breaks when its source breaks, and is cut", async () => {
    const { exchange, ended } = exchangeOf();
    let pulls = 0;
    const source = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          if (++pulls > 1) throw new Error("broken off");
          controller.enqueue(chunk);
        },
      },
      { highWaterMark: 0 },
    );
    const response = new Response(exchange.stream(source));
    exchange.begin(response, false, 5);
    await expect(response.bytes()).rejects.toThrow("broken off");
    expect([ended.length, exchange.bytes, exchange.isCut]).toEqual([1, 10, true]);
  });

  test("tells its source when the client goes away, and asks for nothing that nobody reads", async () => {
    const { exchange, ended } = exchangeOf();
    let pulls = 0;
    const cancelled = Promise.withResolvers<unknown>();
    const source = new ReadableStream<Uint8Array>(
      {
        pull(controller) {
          pulls++;
          controller.enqueue(chunk);
        },
        cancel: cancelled.resolve,
      },
      { highWaterMark: 0 },
    );
    const reader = exchange.stream(source).getReader();
    await reader.read();
    await Bun.sleep(0);
    expect(pulls).toBe(1);
    await reader.cancel("gone");
    expect(await cancelled.promise).toBe("gone");
    expect([ended.length, exchange.isCut]).toEqual([1, true]);
  });
});
