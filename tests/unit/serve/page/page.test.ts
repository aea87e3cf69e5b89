/** The page as the server gives it: the document, its files, and the JSON that it asks for. */
import { describe, expect, test } from "bun:test";
import { serveCache } from "../../../../src/serve/cache.ts";
import type { Overview, PathsPage, PublishesPage } from "../../../../src/serve/page/client/data.ts";
import { openPage } from "../../../../src/serve/page/open.ts";
import { route } from "../../../../src/serve/route.ts";
import { Traffic } from "../../../../src/serve/traffic.ts";
import type { UpstreamStatus } from "../../../../src/serve/upstream-peer.ts";
import { MemoryStore } from "../../../support/memory-store.ts";
import {
  commitNames,
  party,
  storeHash,
  TestHost,
  type TestParty,
  testEntry,
} from "../../../support/protocol.ts";

const KEY = `me-1:${"A".repeat(43)}=`;
const HOSTILE = `"><img src=x onerror=alert(1)><script>alert(1)</script>`;

/** The page of a server with some caches, whose indexes are loaded. */
async function pageOf(
  machines: readonly TestParty[],
  upstreams: readonly Partial<UpstreamStatus>[] = [],
  generation?: string,
) {
  const errors: string[] = [];
  const onError = (message: string) => errors.push(message);
  const caches = machines.map((machine) => serveCache(machine, onError, generation));
  for (const cache of caches) await cache.refresh();
  const traffic = new Traffic();
  const page = openPage({
    caches,
    upstreams: () => upstreams as UpstreamStatus[],
    traffic,
    version: "1.2.3",
    // Its sleep never ends: what happens by the clock is the ring's own test.
    host: Object.assign(new TestHost(), { sleep: () => new Promise<void>(() => {}) }),
    onError: (message) => errors.push(message),
  });
  const ask = async (target: string, init: RequestInit = {}): Promise<Response> => {
    const request = new Request(`http://cache.example:8080${target}`, init);
    const found = route(request.method, request.url);
    // As a request that comes over the network does, it waits for a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
    if (found.kind !== "page") throw new Error(`${target} is no file of the page`);
    return page.answer(found.path, found.query, request);
  };
  const json = async <T>(target: string): Promise<T> => (await (await ask(target)).json()) as T;
  /** The names are read by the first who asks. */
  const counted = async () => {
    while ((await json<PathsPage>("/_page/paths")).counted < 1);
  };
  return { ask, json, counted, caches, traffic, errors, [Symbol.dispose]: () => page[Symbol.dispose]() };
}

describe("the document", () => {
  test("holds what clients must be told, without scripts", async () => {
    using machine = party(new MemoryStore());
    await commitNames(machine, ["a"], { keys: [KEY] });
    using page = await pageOf([machine], [{ url: "https://up.example", state: "up", lastError: null }]);
    const response = await page.ask("/");
    expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
    const html = await response.text();
    expect(html).toContain("extra-substituters = http://cache.example:8080\n");
    expect(html).toContain(`extra-trusted-public-keys = ${KEY}<`);
    expect(html).toContain("https://up.example");
    expect(html).not.toContain("Nothing in this cache is signed");
  });

  test("of one generation alone says which it is, and shows that publish alone", async () => {
    const store = new MemoryStore();
    using publisher = party(store);
    const name = await commitNames(publisher, ["a"]);
    await commitNames(publisher, ["b"]);
    using machine = party(store);
    using page = await pageOf([machine], [], name);
    expect(await (await page.ask("/")).text()).toContain(`<code>${name}</code>`);
    expect((await page.json<Overview>("/_page/overview")).caches).toMatchObject([
      { generation: name, publishes: 1 },
    ]);
    const { publishes } = await page.json<PublishesPage>("/_page/publishes");
    expect(publishes.map(({ id }) => id)).toEqual([name]);
    using whole = await pageOf([publisher]);
    expect(await (await whole.ask("/")).text()).not.toContain("Only one generation");
    expect((await whole.json<Overview>("/_page/overview")).caches).toMatchObject([{ generation: null }]);
  });

  test("of a cache without keys says what that means", async () => {
    using machine = party(new MemoryStore());
    using page = await pageOf([machine]);
    const html = await (await page.ask("/")).text();
    expect(html).toContain("Nothing in this cache is signed");
    expect(html).not.toContain("trusted-public-keys");
  });

  test("texts of strangers stay texts, and hostile keys are not offered", async () => {
    const store = new MemoryStore();
    Object.assign(store, { name: `ghcr.io/${HOSTILE}` });
    using machine = party(store);
    const roots = { [HOSTILE]: HOSTILE };
    const more = { source: HOSTILE, tool: HOSTILE, run: "javascript:alert(1)", revision: HOSTILE, roots };
    await commitNames(machine, ["a"], { ...more, keys: [`${HOSTILE}:AAAA`, `${KEY}\nsandbox = false`] });
    using page = await pageOf([machine], [{ url: HOSTILE, state: "down", lastError: HOSTILE }]);
    const html = await (await page.ask("/")).text();
    expect(html).not.toContain("<img src=x");
    expect(html).not.toContain("<script>alert");
    expect(html).not.toContain("sandbox");
    expect(html.match(/<script/g)).toHaveLength(1);
    const { publishes } = await page.json<PublishesPage>("/_page/publishes");
    // As data they arrive whole: escaping is for markup.
    expect(publishes[0]).toMatchObject({ source: HOSTILE, runUrl: null, revisionUrl: null });
    expect((await page.ask("/_page/publishes")).headers.get("content-type")).toBe("application/json");
  });

  test("allows nothing but files of its own, and asks for nothing elsewhere", async () => {
    using machine = party(new MemoryStore());
    using page = await pageOf([machine]);
    const response = await page.ask("/");
    const policy = response.headers.get("content-security-policy") ?? "";
    expect(policy).toStartWith("default-src 'none'; script-src 'self'; style-src 'self'");
    expect(policy).not.toMatch(/unsafe|data:|https?:|\*/);
    const html = await response.text();
    const files = [...html.matchAll(/(?:src|href)="(_page\/[^"]+)"/g)].map((match) => match[1] as string);
    expect(new Set(files).size).toBe(3);
    for (const file of files) {
      const asset = await page.ask(`/${file}`);
      const { headers } = asset;
      expect([file, asset.status, headers.get("x-content-type-options")]).toEqual([file, 200, "nosniff"]);
      expect(headers.get("cache-control")).toContain("immutable");
      expect(await asset.text()).not.toMatch(/https?:\/\/(?!www\.w3\.org\/|\))/);
    }
    expect(html).not.toMatch(/ (?:style|on\w+)="/);
  });

  test("HEAD is GET without the body", async () => {
    using machine = party(new MemoryStore());
    using page = await pageOf([machine]);
    await page.counted();
    for (const target of ["/", "/_page/overview", "/_page/absent"]) {
      const [get, head] = [await page.ask(target), await page.ask(target, { method: "HEAD" })];
      expect([head.status, head.headers.get("content-length")]).toEqual([
        get.status,
        String((await get.bytes()).length),
      ]);
      expect(await head.text()).toBe("");
    }
  });
});

describe("data", () => {
  test("the overview: totals, publishes, upstreams, traffic", async () => {
    using machine = party(new MemoryStore());
    await commitNames(machine, ["a", "b"], { revision: "r" });
    using page = await pageOf(
      [machine],
      [
        { url: "https://a", state: "up", lastError: null },
        { url: "https://b", state: "down", lastError: "refused" },
      ],
    );
    page.traffic.of("narinfo").count(200, "cache", 0);
    page.traffic.of("nar").bytes += 500;
    page.traffic.of("page").count(200, "none", 0);
    await page.counted();
    const overview = await page.json<Overview>("/_page/overview");
    const fileSize = 2 * testEntry("a").blob.size;
    expect(overview.caches).toMatchObject([
      {
        name: "memory",
        error: null,
        totals: { paths: 2, narSize: 200, fileSize },
        counted: 1,
        publishes: 1,
        latest: { revision: "r", entries: 2 },
      },
    ]);
    expect(overview.upstreams).toEqual([
      { url: "https://a", state: "up", healthy: true },
      { url: "https://b", state: "down: refused", healthy: false },
    ]);
    expect(overview.traffic.total).toMatchObject({ requests: 1, bytes: 500, sources: { cache: 1, none: 0 } });
  });

  test("before an index was loaded there is a page, and it says so", async () => {
    using machine = party(new MemoryStore());
    const cache = serveCache(machine, () => {});
    expect(cache.isLoaded()).toBe(false);
    const host = Object.assign(new TestHost(), { sleep: () => new Promise<void>(() => {}) });
    const options = { caches: [cache], upstreams: () => [], traffic: new Traffic(), version: "1", host };
    using page = openPage({ ...options, onError: () => {} });
    const response = await page.answer("", "", new Request("http://h/"));
    expect(await response.text()).toContain("The index has not been loaded yet");
  });

  test("paths, page by page, and a cursor that is none does no harm", async () => {
    using machine = party(new MemoryStore());
    const names = Array.from({ length: 60 }, (_, i) => `n-${100 + i}`);
    await commitNames(machine, names);
    using page = await pageOf([machine]);
    await page.counted();
    const found: string[] = [];
    for (let next: string | null = ""; next !== null; ) {
      const query = new URLSearchParams({ search: "n-", ...(next && { after: next }) });
      const answer: PathsPage = await page.json<PathsPage>(`/_page/paths?${query}`);
      expect([answer.matches, answer.paths.length <= 25]).toEqual([60, true]);
      found.push(...answer.paths.map(({ name }) => name));
      next = answer.next;
    }
    expect(found).toEqual(names);
    for (const after of ["", "-", "%00", "x".repeat(5000), `${storeHash("a")}`]) {
      expect((await page.ask(`/_page/paths?after=${after}`)).status).toBe(200);
    }
    expect((await page.json<PathsPage>(`/_page/paths?search=${"n".repeat(9999)}`)).matches).toBe(0);
  });

  test("a publish after that is seen by the next who asks", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    using page = await pageOf([machine]);
    await page.counted();
    using publisher = party(store);
    await commitNames(publisher, ["b"]);
    await page.caches[0]?.refresh();
    let matches = 0;
    while (matches < 2) ({ matches } = await page.json<PathsPage>("/_page/paths"));
    expect((await page.json<Overview>("/_page/overview")).caches[0]?.publishes).toBe(2);
    expect(page.errors).toEqual([]);
  });

  test("a closure, of what the cache has alone", async () => {
    using machine = party(new MemoryStore());
    await commitNames(machine, ["a"]);
    using page = await pageOf([machine]);
    expect(await page.json<unknown>(`/_page/closure?hash=${storeHash("a")}`)).toMatchObject({
      paths: 1,
      narSize: 100,
      elsewhere: 0,
      cut: false,
      largest: [{ name: "a" }],
    });
    for (const hash of [storeHash("b"), "", "../../etc", "x".repeat(32)]) {
      expect((await page.ask(`/_page/closure?hash=${hash}`)).status).toBe(404);
    }
  });

  test("several caches are asked for by their number", async () => {
    using one = party(new MemoryStore());
    using two = party(new MemoryStore());
    await commitNames(one, ["a"]);
    await commitNames(two, ["b"]);
    using page = await pageOf([one, two]);
    const names: string[] = [];
    for (const cache of [0, 1]) {
      let answer = await page.json<PathsPage>(`/_page/paths?cache=${cache}`);
      while (answer.counted < 1) answer = await page.json<PathsPage>(`/_page/paths?cache=${cache}`);
      names.push(...answer.paths.map(({ name }) => name));
    }
    expect(names).toEqual(["a", "b"]);
    expect(await (await page.ask("/")).text()).toContain("2 caches");
    for (const cache of ["2", "-1", "x", "1.5", "length"]) {
      expect([cache, (await page.ask(`/_page/paths?cache=${cache}`)).status]).toEqual([cache, 404]);
    }
  });

  test("a search whose asker has gone away ends, and the next one goes on", async () => {
    using machine = party(new MemoryStore());
    await commitNames(machine, ["a"]);
    using page = await pageOf([machine]);
    await page.counted();
    const gone = new AbortController();
    gone.abort();
    await expect(page.ask("/_page/paths", { signal: gone.signal })).rejects.toBe(gone.signal.reason);
    expect((await page.json<PathsPage>("/_page/paths")).matches).toBe(1);
  });
});
