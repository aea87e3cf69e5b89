import { describe, expect, test } from "bun:test";
import { encodeEntry } from "../../../src/cache/entry.ts";
import { realHost } from "../../../src/context.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { serveCache } from "../../../src/serve/cache.ts";
import { createGuard } from "../../../src/serve/guard.ts";
import { createHandler } from "../../../src/serve/handler.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import { BUFFERED_BYTES } from "../../../src/serve/nar.ts";
import { Traffic } from "../../../src/serve/traffic.ts";
import { createUpstreams } from "../../../src/serve/upstreams.ts";
import type { Upstream } from "../../../src/upstream/client.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import {
  commitNames,
  party,
  storeHash,
  type TestParty,
  testEntry,
  testRecord,
} from "../../support/protocol.ts";
import { noise } from "../../support/publish.ts";
import { ANY_UPSTREAMS } from "../../support/upstreams.ts";

function serverOf(
  machine: TestParty,
  upstreams: readonly Upstream[] = [],
  underWay = 1,
  isOnDisk = (_: string) => false,
) {
  const errors: string[] = [];
  const sleeps: number[] = [];
  const cache = serveCache(machine, (message) => errors.push(message));
  const memory = new MemoryBudget();
  const traffic = new Traffic();
  const handler = createHandler({
    caches: [cache],
    upstreams: createUpstreams(upstreams, {
      ...ANY_UPSTREAMS,
      host: realHost,
      onError: (m) => errors.push(m),
    }),
    underWay: () => underWay,
    memory,
    connections: 3,
    isOnDisk,
    guard: createGuard({ hostname: "127.0.0.1" }),
    traffic,
    clock: () => 0,
    sleep: async (ms) => void sleeps.push(ms),
    status: () => ({ entries: cache.summary().entries }),
    metrics: () => "x 1\n",
    onError: (m) => errors.push(m),
  });
  const ask = async (path: string, method = "GET", headers: Record<string, string> = {}) =>
    handler(new Request(`http://127.0.0.1${path}`, { method, headers }));
  return { cache, handle: handler, ask, errors, sleeps, memory, traffic };
}

function upstreamWith(answers: Record<string, string>): Upstream {
  const find = (path: string) =>
    path in answers ? new Response(answers[path], { headers: { "content-type": "x/y" } }) : undefined;
  return {
    url: "https://upstream",
    narinfo: async (hash) => answers[`${hash}.narinfo`],
    request: async (path) => find(path),
  };
}

/** A narinfo, as far as we read it. */
const THEIRS = "URL: nar/u.nar.xz\n";

const deadUpstream: Upstream = {
  url: "https://dead",
  narinfo: async () => {
    throw new NixcacheError("unreachable", "no route to host");
  },
  request: async () => {
    throw new NixcacheError("unreachable", "no route to host");
  },
};

/** Commits one entry whose compressed NAR is `size` bytes in two parts. */
async function commitLarge(machine: TestParty, size: number) {
  const content = noise("large", size);
  const cut = Math.floor(size / 2);
  const pieces = [content.slice(0, cut), content.slice(cut)];
  const blobs = pieces.map((piece) => ({ digest: digestOf(piece), size: piece.length, content: piece }));
  for (const blob of blobs) await machine.store.writeBlob(blob);
  const fileHash = encodeBase32(new Bun.CryptoHasher("sha256").update(content).digest());
  const line = encodeEntry({
    info: {
      storePath: `/nix/store/${storeHash("large")}-large`,
      url: `nar/${fileHash}.nar.zst`,
      compression: "zstd",
      fileHash: `sha256:${fileHash}`,
      fileSize: size,
      narHash: `sha256:${fileHash}`,
      narSize: size,
      references: [],
      sigs: [],
    },
    parts: blobs.map((blob) => ({ blob: blob.digest, size: blob.size, offset: 0, length: blob.size })),
    added: 1,
  });
  await new GenerationWriter(machine, {}).commit(testRecord([line], machine.host), [line], blobs);
  return { content, blobs, path: `/nar/${line.file}` };
}

describe("the handler", () => {
  test("answers 503 for nix-cache-info until an index was loaded, so that Nix skips it", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    store.before = () => {
      throw new NixcacheError("unreachable", "down");
    };
    const { cache, ask } = serverOf(machine);
    await expect(cache.refresh()).rejects.toThrow("down");
    expect((await ask("/nix-cache-info")).status).toBe(503);
    expect((await ask(`/${storeHash("a")}.narinfo`)).status).toBe(404);
    store.before = () => {};
    await cache.refresh();
    const info = await ask("/nix-cache-info");
    expect(info.status).toBe(200);
    expect(await info.text()).toBe("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n");
  });

  test("serves a narinfo and its NAR, by GET and HEAD", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const key = `k:${"A".repeat(43)}=`;
    await commitNames(machine, ["a"], { keys: [key, "k:AAAA\nrequire-sigs = false"] });
    const { cache, ask } = serverOf(machine);
    await cache.refresh();
    const narinfo = await ask(`/${storeHash("a")}.narinfo`);
    expect(await narinfo.text()).toBe(testEntry("a").line.narinfo);
    const path = `/nar/${testEntry("a").line.file}`;
    expect(await (await ask(path)).bytes()).toEqual(testEntry("a").blob.content);
    for (const [url, length] of [
      [`/${storeHash("a")}.narinfo`, testEntry("a").line.narinfo.length],
      [path, testEntry("a").blob.size],
    ] as const) {
      const head = await ask(url, "HEAD");
      expect([head.status, head.headers.get("content-length"), await head.text()]).toEqual([
        200,
        String(length),
        "",
      ]);
    }
    expect(await (await ask("/public-key")).text()).toBe(`${key}\n`);
    expect(await (await ask("/_status")).json()).toEqual({ entries: 1 });
    expect(store.calls.filter((call) => call.startsWith("readBlob")).length).toBeGreaterThan(0);
  });

  test("narinfo look-ups never touch the store", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    const { cache, ask } = serverOf(machine);
    await cache.refresh();
    store.calls.length = 0;
    for (const name of ["a", "b"]) await ask(`/${storeHash(name)}.narinfo`);
    await ask("/nix-cache-info");
    expect(store.calls).toEqual([]);
  });

  test("a NAR in several parts streams in order", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { content, path } = await commitLarge(machine, BUFFERED_BYTES + 12_345);
    const { cache, ask } = serverOf(machine);
    await cache.refresh();
    expect(await (await ask(path)).bytes()).toEqual(content);
  });

  test("rule 6: with little memory left a NAR is asked for in small ranges, is right, and gives all back", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { content, path } = await commitLarge(machine, BUFFERED_BYTES);
    const { cache, ask, memory } = serverOf(machine, [], 200);
    await cache.refresh();
    // Clients that took their window and do not read it.
    const taken = Array.from({ length: 200 }, () => memory.take(1 << 30));
    expect(taken.reduce((sum, bytes) => sum + bytes, 0)).toBeLessThan(50 * 1024 * 1024);
    const ranges: number[] = [];
    const read = store.readBlob.bind(store);
    store.readBlob = (digest, options) => {
      ranges.push(options?.range?.length ?? Number.POSITIVE_INFINITY);
      return read(digest, options);
    };
    expect(await (await ask(path)).bytes()).toEqual(content);
    expect(Math.max(...ranges)).toBe(64 * 1024);
    expect(ranges.reduce((sum, length) => sum + length, 0)).toBe(content.length);
    for (const bytes of taken) memory.giveBack(bytes);
    expect(memory.take(1 << 30)).toBe(3 * 1024 * 1024);
  });

  test.each([1000, BUFFERED_BYTES + 12_345])(
    "rule 5: wrong bytes of a NAR of %i bytes never end cleanly",
    async (size) => {
      for (const damaged of [0, 1]) {
        const store = new MemoryStore();
        using machine = party(store);
        const { blobs, path } = await commitLarge(machine, size);
        const { cache, ask, errors } = serverOf(machine);
        await cache.refresh();
        const blob = blobs[damaged] as (typeof blobs)[0];
        const wrong = blob.content.slice();
        wrong[wrong.length - 1] = (wrong[wrong.length - 1] as number) ^ 1;
        store.blobs.set(blob.digest, wrong);
        const response = await ask(path);
        if (size <= BUFFERED_BYTES) {
          expect(response.status).toBe(404);
          expect(errors).toEqual([expect.stringContaining(blob.digest)]);
        } else {
          await expect(response.bytes()).rejects.toThrow("SHA-256");
        }
      }
    },
  );

  test("asks upstreams for what it has not, and passes their NARs through", async () => {
    using machine = party(new MemoryStore());
    const upstream = upstreamWith({
      [`${storeHash("u")}.narinfo`]: "URL: nar/u.nar.xz\n",
      "nar/u.nar.xz": "bytes",
    });
    const { cache, ask, errors } = serverOf(machine, [deadUpstream, upstream]);
    await cache.refresh();
    const [, url] =
      /^URL: (from\/[0-9a-f]{32}\/nar\/u\.nar\.xz)\n$/.exec(
        await (await ask(`/${storeHash("u")}.narinfo`)).text(),
      ) ?? [];
    expect(await (await ask(`/${url}`)).text()).toBe("bytes");
    // As clients remember it from when that upstream was the first.
    expect(await (await ask("/nar/u.nar.xz")).text()).toBe("bytes");
    // Once is enough to know that it is dead.
    expect(errors).toEqual([expect.stringContaining("no route to host; left alone")]);
  });

  test("S7: what no narinfo has named no upstream is asked for, and no query of a client's", async () => {
    using machine = party(new MemoryStore());
    const asked: string[] = [];
    const upstream = upstreamWith({
      [`${storeHash("u")}.narinfo`]: "URL: files/u.nar?of=u\n",
      "files/u.nar?of=u": "bytes",
    });
    const watched: Upstream = {
      ...upstream,
      request: (path, init) => {
        asked.push(path);
        return upstream.request(path, init);
      },
    };
    const { cache, ask, handle } = serverOf(machine, [watched]);
    await cache.refresh();
    asked.length = 0;
    const [, url = ""] = /^URL: (.*)$/m.exec(await (await ask(`/${storeHash("u")}.narinfo`)).text()) ?? [];
    const id = new Bun.CryptoHasher("sha256").update(upstream.url).digest("hex");
    for (const path of [
      `/from/${id.slice(0, 8)}/admin?delete=all`,
      `/from/${id.slice(0, 32)}/admin?delete=all`,
      `/${url}&delete=all`,
      `/${url.replace("?of=u", "")}`,
      `/${url.replace("files/u.nar", "admin")}`,
      `/${url.replace("files/", "files%2f")}&`,
    ]) {
      for (const method of ["GET", "HEAD"])
        expect([path, (await ask(path, method)).status]).toEqual([path, 404]);
    }
    expect(asked).toEqual([]);
    // Of any other NAR the path alone goes on.
    await ask("/nar/x.nar?delete=all");
    expect(asked).toEqual(["nar/x.nar"]);
    const from = (headers: Record<string, string>) =>
      handle(new Request(`http://127.0.0.1:37515/${url}`, { headers }));
    for (const headers of [
      { host: "evil.example" },
      { "sec-fetch-site": "cross-site" },
      { "sec-fetch-site": "same-site" },
      { origin: "https://evil.example", host: "127.0.0.1:37515" },
      { referer: "http://127.0.0.1:8080/", host: "127.0.0.1:37515" },
    ])
      expect([headers, (await from(headers)).status] as const).toEqual([headers, 403]);
    expect(await (await from({ host: "127.0.0.1:37515" })).text()).toBe("bytes");
  });

  test("with every upstream down a narinfo is 404, and so is a NAR", async () => {
    using machine = party(new MemoryStore());
    const down = serverOf(machine, [deadUpstream]);
    await down.cache.refresh();
    expect((await down.ask(`/${storeHash("u")}.narinfo`)).status).toBe(404);
    expect((await down.ask("/nar/u.nar.xz")).status).toBe(404);
    const up = serverOf(machine, [upstreamWith({})]);
    expect((await up.ask("/nar/u.nar.xz")).status).toBe(404);
  });

  test("defect 7: _refresh always asks, and answers after a refresh that began after the call", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { cache, ask } = serverOf(machine);
    const started = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    store.before = async (call) => {
      if (call !== "listTags") return;
      started.resolve();
      await go.promise;
    };
    const running = cache.refresh();
    await started.promise;
    store.before = () => {};
    using publisher = party(store);
    await commitNames(publisher, ["a"]);
    const asked = ask("/_refresh", "POST");
    go.resolve();
    await running;
    expect((await asked).status).toBe(200);
    expect((await ask(`/${storeHash("a")}.narinfo`)).status).toBe(200);
  });

  test("_refresh lists the tags also when it joins a refresh that would not, and is shared", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const stop = new AbortController();
    const { cache, ask } = serverOf({ ...machine, signal: stop.signal });
    await cache.refresh();
    const started = Promise.withResolvers<void>();
    const go = Promise.withResolvers<void>();
    store.before = async (call) => {
      if (call !== "listTags") return;
      started.resolve();
      await go.promise;
    };
    const running = cache.refresh();
    await started.promise;
    store.before = () => {};
    using publisher = party(store);
    await commitNames(publisher, ["a"]);
    // The periodic refresh waits for its turn first, and would ask for the root alone.
    const periodic = cache.keepFresh(1);
    const asked = [ask("/_refresh", "POST"), ask("/_refresh", "POST")];
    store.calls.length = 0;
    go.resolve();
    await Promise.all([running, ...asked]);
    expect(store.calls.filter((call) => call === "listTags")).toHaveLength(1);
    expect((await ask(`/${storeHash("a")}.narinfo`)).status).toBe(200);
    stop.abort();
    await periodic;
  });

  test("a periodic refresh that failed is tried again soon, ever more seldom, and lists the tags until one succeeds", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const stop = new AbortController();
    const [waits, failed]: [number[], string[]] = [[], []];
    machine.host.sleep = async (ms) => {
      waits.push(ms);
      if (waits.length === 4) store.before = () => {};
      if (waits.length === 6) stop.abort();
    };
    store.before = (call) => {
      failed.push(call);
      throw new NixcacheError("unreachable", "no network yet");
    };
    const { cache } = serverOf({ ...machine, signal: stop.signal });
    await cache.keepFresh(30_000);
    expect(waits).toEqual([5_000, 10_000, 20_000, 30_000, 30_000, 30_000]);
    expect(failed.filter((call) => call === "listTags")).toHaveLength(4);
  });

  test("a refresh that fails says so, once, and the old index goes on", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    const { cache, ask, errors } = serverOf(machine);
    await cache.refresh();
    store.before = () => {
      throw new NixcacheError("unreachable", "registry down");
    };
    for (let i = 0; i < 3; i++) expect((await ask("/_refresh", "POST")).status).toBe(502);
    expect(errors).toEqual(["registry down"]);
    expect(cache.lastError()).toBe("registry down");
    expect((await ask(`/${storeHash("a")}.narinfo`)).status).toBe(200);
    expect((await ask("/nix-cache-info")).status).toBe(200);
  });

  test("counts where answers came from, and what is on disk apart", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    const upstream = upstreamWith({
      [`${storeHash("u")}.narinfo`]: THEIRS,
      "nar/u.nar.xz": "bytes",
    });
    const onDisk = new Set<string>();
    const { cache, ask, traffic } = serverOf(machine, [upstream], 1, (digest) => onDisk.has(digest));
    await cache.refresh();
    for (const name of ["a", "u", "none"]) await (await ask(`/${storeHash(name)}.narinfo`)).text();
    const nar = `/nar/${testEntry("a").line.file}`;
    await (await ask(nar)).bytes();
    onDisk.add(testEntry("a").blob.digest);
    await (await ask(nar)).bytes();
    await (await ask("/nar/u.nar.xz")).bytes();
    expect(traffic.of("narinfo").hits).toEqual({ cache: 1, journal: 0, disk: 0, upstream: 1, none: 1 });
    expect(traffic.of("nar").hits).toEqual({ cache: 1, journal: 0, disk: 1, upstream: 1, none: 0 });
    expect(traffic.of("nar").bytes).toBe(2 * testEntry("a").blob.size + "bytes".length);
    expect(traffic.of("narinfo").bytes).toBe(
      testEntry("a").line.narinfo.length + THEIRS.length + "not found\n".length,
    );
  });

  test("the guard is asked before anything is listed or changed, and not for what has a hash", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    const { cache, ask } = serverOf(machine);
    await cache.refresh();
    store.calls.length = 0;
    const evil = { host: "evil.example" };
    for (const path of ["/_status", "/metrics", "/", "/_page/x"]) {
      expect([path, (await ask(path, "GET", evil)).status]).toEqual([path, 403]);
    }
    expect((await ask("/_refresh", "POST", evil)).status).toBe(403);
    expect((await ask("/_refresh", "POST", { host: "localhost", origin: "http://x" })).status).toBe(403);
    expect(store.calls).toEqual([]);
    expect((await ask(`/${storeHash("a")}.narinfo`, "GET", evil)).status).toBe(200);
    expect((await ask("/nix-cache-info", "GET", evil)).status).toBe(200);
    expect(await (await ask("/metrics")).text()).toBe("x 1\n");
  });

  test("a client that hangs up before its answer is there is nobody's failure", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { path } = await commitLarge(machine, 1000);
    const hanging: Upstream = {
      ...deadUpstream,
      request: async (file) => {
        if (file !== "nix-cache-info") throw new Error("aborted");
        return undefined;
      },
    };
    const { cache, handle, errors, traffic } = serverOf(machine, [hanging]);
    await cache.refresh();
    for (const asked of [path, "/nar/u.nar.xz", "/log/x.drv"]) {
      const client = new AbortController();
      store.before = () => {
        client.abort();
        throw new NixcacheError("interrupted", "interrupted");
      };
      if (asked !== path) client.abort();
      const request = new Request(`http://127.0.0.1${asked}`, { signal: client.signal });
      expect([asked, (await handle(request)).status]).toEqual([asked, 499]);
    }
    expect([errors, traffic.of("nar").statuses[5]]).toEqual([[], 0]);
  });

  test("what upstreams write cannot act as a page of ours", async () => {
    using machine = party(new MemoryStore());
    const { cache, ask } = serverOf(machine, [
      upstreamWith({ "nar/u.nar": "<script>", "log/u.drv": "<script>" }),
    ]);
    await cache.refresh();
    for (const path of ["/nar/u.nar", "/log/u.drv"]) {
      const { status, headers } = await ask(path);
      const policy = headers.get("content-security-policy");
      expect([path, status, policy]).toEqual([path, 200, "sandbox; default-src 'none'"]);
      expect(headers.get("x-content-type-options")).toBe("nosniff");
    }
  });

  test("other methods are refused with what is allowed", async () => {
    using machine = party(new MemoryStore());
    const { ask } = serverOf(machine);
    const response = await ask("/nix-cache-info", "PUT");
    expect([response.status, response.headers.get("allow")]).toEqual([405, "GET, HEAD"]);
  });
});
