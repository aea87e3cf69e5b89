/** What a client gets while something behind serve is broken. What Nix makes of it is in docs/serving.md. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeEntry } from "../../../src/cache/entry.ts";
import { realHost } from "../../../src/context.ts";
import { type ErrorCode, NixcacheError } from "../../../src/errors.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { BlobCache } from "../../../src/oci/blob-cache.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { serveCache } from "../../../src/serve/cache.ts";
import { createGuard } from "../../../src/serve/guard.ts";
import { createHandler } from "../../../src/serve/handler.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import { BUFFERED_BYTES } from "../../../src/serve/nar.ts";
import { Traffic } from "../../../src/serve/traffic.ts";
import { UpstreamNars } from "../../../src/serve/upstream-nars.ts";
import { createUpstreams } from "../../../src/serve/upstreams.ts";
import type { Writer } from "../../../src/serve/writer.ts";
import type { Upstream } from "../../../src/upstream/client.ts";
import { UpstreamFailure } from "../../../src/upstream/failure.ts";
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

interface ServerOptions {
  readonly machines: readonly TestParty[];
  readonly upstreams?: readonly Upstream[];
  readonly upstreamNars?: UpstreamNars;
  readonly writer?: Writer;
}

function serverOf({ machines, upstreams = [], upstreamNars, writer }: ServerOptions) {
  const errors: string[] = [];
  const sleeps: number[] = [];
  const clock = { ms: 0, onSleep: () => {} };
  const caches = machines.map((machine) => serveCache(machine, (message) => errors.push(message)));
  const handler = createHandler({
    caches,
    upstreams: createUpstreams(upstreams, {
      ...ANY_UPSTREAMS,
      host: realHost,
      onError: (message) => errors.push(message),
    }),
    upstreamNars,
    writer,
    underWay: () => 1,
    memory: new MemoryBudget(),
    connections: 3,
    guard: createGuard({ hostname: "127.0.0.1" }),
    traffic: new Traffic(),
    clock: () => clock.ms,
    sleep: async (ms) => {
      sleeps.push(ms);
      clock.onSleep();
    },
    status: () => ({}),
    metrics: () => "",
    onError: (message) => errors.push(message),
  });
  const ask = async (path: string, headers: Record<string, string> = {}, method = "GET") =>
    handler(new Request(`http://127.0.0.1${path}`, { method, headers }));
  const refresh = () => Promise.all(caches.map((cache) => cache.refresh()));
  return { refresh, ask, errors, sleeps, clock };
}

/** Its status, and whether it says that ranges may be asked for. */
const seen = (response: Response) => [response.status, response.headers.get("accept-ranges")];

const fail = (code: ErrorCode) => () => {
  throw new NixcacheError(code, `it is ${code}`);
};

const A = `/nar/${testEntry("a").line.file}`;
const RANGE = { range: "bytes=10-" };

const deadUpstream: Upstream = {
  url: "https://dead",
  narinfo: async () => fail("unreachable")(),
  request: async () => fail("unreachable")(),
};

/** An upstream with one NAR, which answers as `answer` says. */
const upstreamWith = (answer: () => Response | undefined): Upstream => ({
  url: "https://upstream",
  narinfo: async () => undefined,
  request: async (path) => (path === "nar/u.nar.xz" ? answer() : undefined),
});

/** A server with one path whose registry fails from now on. */
async function down(machine: TestParty, store: MemoryStore, code: ErrorCode) {
  await commitNames(machine, ["a"]);
  const server = serverOf({ machines: [machine] });
  await server.refresh();
  store.before = fail(code);
  return server;
}

/** A NAR that is streamed: one blob of content. */
async function commitLarge(machine: TestParty) {
  const content = noise("large", BUFFERED_BYTES + 12_345);
  const blob = { digest: digestOf(content), size: content.length, content };
  await machine.store.writeBlob(blob);
  const hash = encodeBase32(new Bun.CryptoHasher("sha256").update(content).digest());
  const line = encodeEntry({
    info: {
      storePath: `/nix/store/${storeHash("large")}-large`,
      url: `nar/${hash}.nar.zst`,
      compression: "zstd",
      fileHash: `sha256:${hash}`,
      fileSize: content.length,
      narHash: `sha256:${hash}`,
      narSize: content.length,
      references: [],
      sigs: [],
    },
    parts: [{ blob: blob.digest, size: blob.size, offset: 0, length: blob.size }],
    added: 1,
  });
  await new GenerationWriter(machine, {}).commit(testRecord([line], machine.host), [line], [blob]);
  return { content, blob, path: `/nar/${line.file}` };
}

describe("a NAR that cannot be had", () => {
  test.each(["unreachable", "denied", "protocol", "filesystem", "corrupt"] as const)(
    "now (%s): a download that begins gets a 404, at once",
    async (code) => {
      const store = new MemoryStore();
      using machine = party(store);
      const { ask, sleeps, errors } = await down(machine, store, code);
      for (const method of ["GET", "GET"]) expect(seen(await ask(A, {}, method))).toEqual([404, "bytes"]);
      expect(sleeps).toEqual([]);
      expect(errors).toEqual([`it is ${code}`, `it is ${code}`]);
    },
  );

  test("now: one that is resumed gets a 503, and the last of Nix's tries a 404", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { ask, sleeps, errors } = await down(machine, store, "unreachable");
    const answers: unknown[] = [];
    for (let i = 0; i < 8; i++) answers.push(seen(await ask(A, RANGE)));
    const round = [
      [503, "bytes"],
      [503, "bytes"],
      [503, "bytes"],
      [404, "bytes"],
    ];
    expect(answers).toEqual([...round, ...round]);
    // Each is held for a moment, and told of once.
    expect(sleeps).toEqual(Array.from({ length: 8 * 3 }, () => 500));
    expect(errors).toHaveLength(8);
  });

  test("now: refusals of long ago do not count", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { ask, clock } = await down(machine, store, "unreachable");
    for (let i = 0; i < 3; i++) expect((await ask(A, RANGE)).status).toBe(503);
    clock.ms += 60_000;
    for (let i = 0; i < 3; i++) expect((await ask(A, RANGE)).status).toBe(503);
  });

  test("now: one that is resumed goes on as soon as it can be had, and later refusals count anew", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { ask, clock, sleeps } = await down(machine, store, "unreachable");
    for (let i = 0; i < 3; i++) expect((await ask(A, RANGE)).status).toBe(503);
    sleeps.length = 0;
    clock.onSleep = () => {
      if (sleeps.length === 3) store.before = () => {};
    };
    const response = await ask(A, RANGE);
    expect(seen(response)).toEqual([206, "bytes"]);
    expect(await response.bytes()).toEqual(testEntry("a").blob.content.slice(10));
    store.before = fail("unreachable");
    clock.onSleep = () => {};
    expect((await ask(A, RANGE)).status).toBe(503);
  });

  test("now: a try that takes its time is not followed by others", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { ask, clock, sleeps } = await down(machine, store, "unreachable");
    store.before = () => {
      clock.ms += 2_000;
      fail("unreachable")();
    };
    expect((await ask(A, RANGE)).status).toBe(503);
    expect(sleeps).toEqual([]);
  });

  test("ever, as its blob is gone: 404, whether it begins or is resumed, and nobody waits", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { path } = await commitLarge(machine);
    await commitNames(machine, ["a"]);
    const { refresh, ask, sleeps } = serverOf({ machines: [machine] });
    await refresh();
    store.blobs.clear();
    for (const nar of [A, path]) {
      for (const headers of [{}, RANGE]) expect(seen(await ask(nar, headers))).toEqual([404, "bytes"]);
    }
    expect(sleeps).toEqual([]);
  });

  test("right, as its blob is damaged: the transfer breaks, and is not resumed to a wrong end", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    const { path, blob, content } = await commitLarge(machine);
    const { refresh, ask, clock } = serverOf({ machines: [machine] });
    await refresh();
    const damaged = content.slice();
    damaged[0] = (damaged[0] as number) ^ 1;
    store.blobs.set(blob.digest, damaged);
    await expect((await ask(path)).bytes()).rejects.toThrow("SHA-256");
    const rest = { range: `bytes=${BUFFERED_BYTES}-` };
    for (let i = 0; i < 2; i++) expect(seen(await ask(path, rest))).toEqual([404, "bytes"]);
    // A download that begins may find it mended, and what was wrong a minute ago is asked for again.
    store.blobs.set(blob.digest, content);
    expect(await (await ask(path)).bytes()).toEqual(content);
    clock.ms += 60_000;
    expect((await ask(path, rest)).status).toBe(206);
  });

  test("from one cache comes from another one that has it", async () => {
    const [first, second] = [new MemoryStore(), new MemoryStore()];
    using one = party(first);
    using two = party(second);
    for (const machine of [one, two]) await commitNames(machine, ["a"]);
    const { refresh, ask } = serverOf({ machines: [one, two] });
    await refresh();
    for (const breaks of [() => (first.before = fail("unreachable")), () => first.blobs.clear()]) {
      breaks();
      expect(await (await ask(A)).bytes()).toEqual(testEntry("a").blob.content);
      expect((await ask(A, RANGE)).status).toBe(206);
      first.before = () => {};
    }
  });

  test("of upstreams that are down: as one of ours", async () => {
    using machine = party(new MemoryStore());
    const { refresh, ask, sleeps } = serverOf({ machines: [machine], upstreams: [deadUpstream] });
    await refresh();
    for (const path of ["/nar/u.nar.xz", `/from/${"0".repeat(32)}/u.nar`]) {
      expect(seen(await ask(path))).toEqual([404, "bytes"]);
    }
    expect(sleeps).toEqual([]);
    for (const status of [503, 503, 503, 404]) {
      expect(seen(await ask("/nar/u.nar.xz", RANGE))).toEqual([status, "bytes"]);
    }
  });
});

describe("before an index was ever loaded", () => {
  test.each([
    ["alone", []],
    ["with an upstream that has it not", [upstreamWith(() => undefined)]],
    ["with an upstream that is down", [deadUpstream]],
  ])("nobody learns that a NAR of ours is absent, %s", async (_, upstreams) => {
    const store = new MemoryStore();
    store.before = fail("unreachable");
    using machine = party(store);
    const { refresh, ask } = serverOf({ machines: [machine], upstreams });
    await expect(refresh()).rejects.toThrow();
    expect((await ask("/nix-cache-info")).status).toBe(503);
    for (const method of ["GET", "HEAD"]) {
      for (const headers of [{}, RANGE]) expect(seen(await ask(A, headers, method))).toEqual([503, "bytes"]);
    }
    store.before = () => {};
    await refresh();
    expect((await ask("/nix-cache-info")).status).toBe(200);
    expect(seen(await ask(A))).toEqual([404, "bytes"]);
  });

  test("what an upstream has is passed on, and a NAR that only an upstream can have is absent without it", async () => {
    using machine = party(new MemoryStore());
    const { ask } = serverOf({ machines: [machine], upstreams: [upstreamWith(() => new Response("bytes"))] });
    expect(await (await ask("/nar/u.nar.xz")).text()).toBe("bytes");
    expect(seen(await ask(`/from/${"0".repeat(32)}/u.nar`))).toEqual([404, "bytes"]);
  });
});

describe("every answer to a request for a NAR", () => {
  test("says that ranges may be asked for", async () => {
    const store = new MemoryStore();
    using machine = party(store);
    await commitNames(machine, ["a"]);
    const { refresh, ask } = serverOf({
      machines: [machine],
      upstreams: [upstreamWith(() => new Response("bytes"))],
    });
    await refresh();
    const etag = (await ask(A)).headers.get("etag") ?? "";
    for (const [path, headers, status] of [
      [A, {}, 200],
      [A, RANGE, 206],
      [A, { range: "bytes=99999-" }, 416],
      [A, { "if-none-match": etag }, 304],
      ["/nar/absent.nar", {}, 404],
      ["/nar/u.nar.xz", {}, 200],
    ] as const) {
      for (const method of ["GET", "HEAD"]) {
        const response = await ask(path, headers, method);
        const isHead = method === "HEAD" && (status === 206 || status === 416);
        expect([path, method, ...seen(response)]).toEqual([path, method, isHead ? 200 : status, "bytes"]);
      }
    }
  });

  test("keeps its word for an upstream without ranges, as far as its length is known", async () => {
    using machine = party(new MemoryStore());
    const whole = () => new Response("0123456789", { headers: { "content-length": "10" } });
    let answer = whole;
    const { refresh, ask } = serverOf({ machines: [machine], upstreams: [upstreamWith(() => answer())] });
    await refresh();
    const response = await ask("/nar/u.nar.xz", { range: "bytes=4-" });
    expect(seen(response)).toEqual([206, "bytes"]);
    expect(response.headers.get("content-range")).toBe("bytes 4-9/10");
    expect(await response.text()).toBe("456789");
    // The whole is the right answer where it has changed since, and the only one where nobody knows its length.
    const changed = await ask("/nar/u.nar.xz", { range: "bytes=4-", "if-range": '"x"' });
    expect([changed.status, await changed.text()]).toEqual([200, "0123456789"]);
    answer = () => new Response(new Blob(["0123456789"]).stream());
    expect((await ask("/nar/u.nar.xz", { range: "bytes=4-" })).status).toBe(200);
  });
});

const BESIDE = [
  `/${storeHash("u")}.ls`,
  "/log/x.drv",
  "/realisations/sha256:00!out.doi",
  "/build-trace-v2/x/out.doi",
];

test("a log, a listing or a realisation of ours that cannot be had is absent: a 5xx would end what asks for it", async () => {
  using machine = party(new MemoryStore());
  const store = new MemoryStore();
  const part = { blob: digestOf(new Uint8Array(9)), size: 9, offset: 0, length: 9 };
  const journal: Writer = {
    store,
    view: { narinfo: () => undefined, nar: () => undefined, listing: () => part, attached: () => ({ part }) },
    put: async () => new Response(),
    keepsNar: () => false,
  };
  for (const before of [() => {}, fail("unreachable")]) {
    store.before = before;
    const { ask, errors } = serverOf({ machines: [machine], writer: journal });
    for (const path of BESIDE) expect([path, (await ask(path)).status]).toEqual([path, 404]);
    expect(errors).toHaveLength(BESIDE.length);
  }
});

test("an upstream that is down has no narinfos, logs, listings and realisations", async () => {
  using machine = party(new MemoryStore());
  const { refresh, ask } = serverOf({ machines: [machine], upstreams: [deadUpstream] });
  await refresh();
  for (const path of [...BESIDE, `/${storeHash("u")}.narinfo`]) {
    expect([path, (await ask(path)).status]).toEqual([path, 404]);
  }
});

test("an upstream that states its NARs wrongly loses the disk cache and nothing else", async () => {
  const folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
  try {
    using machine = party(new MemoryStore());
    await using nars = await BlobCache.open({
      directory: folder,
      limit: 1e9,
      host: realHost,
      warn: () => {},
    });
    const hash = encodeBase32(digestOfText("other bytes"));
    const narinfo = `StorePath: /nix/store/${storeHash("u")}-u\nURL: nar/u.nar.xz\nCompression: xz\nFileHash: sha256:${hash}\nFileSize: 5\nNarHash: sha256:${hash}\nNarSize: 5\nReferences: \n`;
    const upstream: Upstream = {
      ...upstreamWith(() => new Response("bytes", { headers: { "content-length": "5" } })),
      narinfo: async () => narinfo,
    };
    const server = serverOf({
      machines: [machine],
      upstreams: [upstream],
      upstreamNars: new UpstreamNars(nars),
    });
    await server.refresh();
    expect((await server.ask(`/${storeHash("u")}.narinfo`)).status).toBe(200);
    for (let i = 0; i < 2; i++) {
      const response = await server.ask("/nar/u.nar.xz");
      expect([...seen(response), await response.text()]).toEqual([200, "bytes", "bytes"]);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

function digestOfText(text: string): Uint8Array {
  return new Bun.CryptoHasher("sha256").update(text).digest();
}

test("an upstream that fails with a status is as absent as one that does not answer", async () => {
  using machine = party(new MemoryStore());
  const refusing = upstreamWith(() => {
    throw new UpstreamFailure("GET u: got status 429", { status: 429 });
  });
  const { refresh, ask } = serverOf({ machines: [machine], upstreams: [refusing] });
  await refresh();
  expect((await ask("/nar/u.nar.xz")).status).toBe(404);
});
