/**
 * Upstreams that are dead in every way there is, over real sockets: what they cost is counted in requests that
 * reach them, since the clock stands still and so nothing that is left alone comes back.
 */
import { afterEach, describe, expect, test } from "bun:test";
import { createServer, type RequestListener } from "node:http";
import { realHost } from "../../src/context.ts";
import { DIRECT_WEB } from "../../src/network/web.ts";
import { createUpstreams, type Upstreams } from "../../src/serve/upstreams.ts";
import { openUpstream } from "../../src/upstream/client.ts";
import { type Answer, head, openLiar } from "../fuzz/liar.ts";
import { Cleanup } from "../support/lease.ts";
import { storeHash } from "../support/protocol.ts";
import { ANY_UPSTREAMS } from "../support/upstreams.ts";

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

const TIMEOUT_MS = 300;
const CACHE_INFO = "StoreDir: /nix/store\nPriority: 40\n";
const NAR = "x".repeat(100_000);

const narinfo = (hash: string) =>
  `StorePath: /nix/store/${hash}-x\nURL: nar/${hash}.nar\nCompression: none\n` +
  `NarHash: sha256:${"0".repeat(52)}\nNarSize: 1\nReferences: \n`;

/** Without what says which upstream has named the NAR. */
const asGiven = (text: string | undefined) => text?.replace(/^URL: from\/[0-9a-f]{32}\//m, "URL: ");

const hashes = (count: number, of = "") => Array.from({ length: count }, (_, i) => storeHash(`${of}${i}`));

interface TestServer {
  readonly url: string;
  /** Paths that were asked for. */
  readonly requests: string[];
  /** Connections that were ever made to it. */
  readonly connections: () => number;
  readonly close: () => Promise<void>;
}

/** A cache that has every path, unless `answer` says something else and returns true. */
async function serve(
  answer: (...args: Parameters<RequestListener>) => boolean = () => false,
): Promise<TestServer> {
  const requests: string[] = [];
  let connections = 0;
  const server = createServer((request, response) => {
    const path = request.url ?? "";
    requests.push(path);
    if (answer(request, response)) return;
    if (path === "/nix-cache-info") response.end(CACHE_INFO);
    else if (path.endsWith(".narinfo")) response.end(narinfo(path.slice(1, 33)));
    else response.end(NAR);
  });
  server.on("connection", () => connections++);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  return cleanup.add({ url: `http://127.0.0.1:${port}`, requests, connections: () => connections, close });
}

function open(urls: readonly string[]): { upstreams: Upstreams; errors: string[] } {
  const options = { web: DIRECT_WEB, timeoutMs: TIMEOUT_MS, stallMs: TIMEOUT_MS, userAgent: "test" };
  const errors: string[] = [];
  const upstreams = createUpstreams(
    urls.map((url) => openUpstream(url, options)),
    {
      ...ANY_UPSTREAMS,
      host: { ...realHost, now: () => 1_000_000 },
      onError: (message) => errors.push(message),
    },
  );
  cleanup.add({ close: async () => upstreams.close() });
  return { upstreams, errors };
}

const request = (headers: Record<string, string> = {}) => new Request("http://localhost/", { headers });

async function narOf(upstreams: Upstreams, path: string): Promise<string> {
  const found = await upstreams.nar(path, request());
  return typeof found === "string" ? found : found.text();
}

describe("a dead upstream beside one that lives", () => {
  const silent: Answer = () => {};
  const status =
    (line: string): Answer =>
    (_, out) =>
      out.write(head({ "content-length": 4 }, line).concat("oops"));
  const unanswered = (text: string, out: Parameters<Answer>[1]) => out.write(text);

  test.each<[name: string, answer: Answer | undefined, requests: number]>([
    ["refuses connections", undefined, 0],
    ["never answers", silent, 70],
    ["says 500", status("500 Oops"), 140],
    ["says 503 and asks to be left alone", status("503 Busy"), 140],
    ["says 429", status("429 Slow down"), 70],
    ["breaks off", (_, out) => out.end(), 140],
    [
      "hangs in the middle of a narinfo",
      (_, out) => unanswered(`${head({ "content-length": 500 })}Store`, out),
      70,
    ],
    [
      "answers with a page to sign in at",
      (_, out) => unanswered(`${head({ "content-length": 13 })}<html></html>`, out),
      70,
    ],
    [
      "speaks of another store",
      (r, out) => {
        const text = r.includes("cache-info")
          ? "StoreDir: /gnu/store\n"
          : narinfo(storeHash("z")).replaceAll("/nix/", "/gnu/");
        out.write(head({ "content-length": text.length }) + text);
      },
      70,
    ],
  ])("that %s costs a burst of questions once, and then nothing", async (_, answer, most) => {
    const well = await serve();
    const dead = answer === undefined ? undefined : cleanup.add(await openLiar(answer));
    const { upstreams } = open([`http://${dead?.host ?? "127.0.0.1:1"}`, well.url]);
    const burst = await Promise.all(hashes(100).map((hash) => upstreams.narinfo(hash, request())));
    expect(burst.map(asGiven)).toEqual(hashes(100).map(narinfo));
    // A lone answer that is wrong says little; some in a row do.
    for (const hash of hashes(4, "then")) await upstreams.narinfo(hash, request());
    while (upstreams.status()[0]?.state !== "down") await Bun.sleep(1);
    const reached = dead?.requests.length ?? 0;
    expect(reached).toBeLessThanOrEqual(most);
    for (const hash of hashes(100, "later")) {
      expect(asGiven(await upstreams.narinfo(hash, request()))).toBe(narinfo(hash));
      expect(await narOf(upstreams, `nar/${hash}.nar`)).toBe(NAR);
    }
    expect(await narOf(upstreams, "nar/unknown.nar")).toBe(NAR);
    expect(dead?.requests.length ?? 0).toBe(reached);
  });

  test("that answers after the time-out is found out by its probe, before anybody asks", async () => {
    const slow = await serve(() => true);
    const well = await serve();
    const { upstreams, errors } = open([slow.url, well.url]);
    while (upstreams.status()[0]?.state !== "down") await Bun.sleep(1);
    for (const hash of hashes(50))
      expect(asGiven(await upstreams.narinfo(hash, request()))).toBe(narinfo(hash));
    expect(slow.requests).toEqual(["/nix-cache-info"]);
    expect(errors).toEqual([
      `GET ${slow.url}/nix-cache-info: no answer in ${TIMEOUT_MS} ms; left alone for 1 s`,
    ]);
  });

  test("that hangs in the middle of a NAR breaks this transfer, and is left alone", async () => {
    const sick = await serve(({ url }, response) => {
      if (!url?.startsWith("/nar/")) return false;
      response.writeHead(200, { "content-length": NAR.length });
      response.write("x");
      return true;
    });
    const { upstreams } = open([sick.url]);
    await expect(narOf(upstreams, "nar/x.nar")).rejects.toThrow("no byte in");
    expect(upstreams.status()[0]).toMatchObject({ state: "down" });
    expect(await narOf(upstreams, "nar/x.nar")).toBe("failed");
    expect(sick.requests.filter((path) => path.startsWith("/nar/"))).toEqual(["/nar/x.nar"]);
  });

  test("alone: narinfos are absent and NARs fail, without a wait", async () => {
    const { upstreams } = open(["http://127.0.0.1:1"]);
    expect(await upstreams.narinfo(storeHash("a"), request())).toBeUndefined();
    expect(await narOf(upstreams, "nar/x.nar")).toBe("failed");
    expect(await upstreams.attached("log/x.drv", request())).toBe("failed");
  });
});

describe("an upstream that fails for one path", () => {
  test.each([500, 503])("with %i is asked for all others", async (code) => {
    const bad = storeHash("bad");
    const sick = await serve(({ url }, response) => {
      if (url !== `/${bad}.narinfo`) return false;
      response.writeHead(code).end();
      return true;
    });
    const { upstreams } = open([sick.url]);
    for (const hash of hashes(20)) {
      expect(await upstreams.narinfo(bad, request())).toBeUndefined();
      expect(asGiven(await upstreams.narinfo(hash, request()))).toBe(narinfo(hash));
    }
    expect(upstreams.status()[0]).toMatchObject({ state: "up", failures: 20, hits: 20, priority: 40 });
  });

  test("once is asked again, and the client sees nothing", async () => {
    let left = 1;
    const sick = await serve(({ url }, response) => {
      if (url === "/nix-cache-info" || left-- <= 0) return false;
      response.destroy();
      return true;
    });
    const { upstreams, errors } = open([sick.url]);
    expect(await narOf(upstreams, "nar/x.nar")).toBe(NAR);
    expect(errors).toEqual([]);
  });
});

describe("connections", () => {
  test("are kept, for what is there and what is not", async () => {
    const cache = await serve(({ url }, response) => {
      if (!url?.includes("absent")) return false;
      response.writeHead(404).end("not found\n");
      return true;
    });
    const { upstreams } = open([cache.url]);
    for (const hash of hashes(30)) {
      await upstreams.narinfo(hash, request());
      await narOf(upstreams, `nar/${hash}.nar`);
      await narOf(upstreams, "nar/absent.nar");
    }
    expect(cache.requests.length).toBe(91);
    // The first question and the probe come at the same moment.
    expect(cache.connections()).toBeLessThanOrEqual(2);
  });

  test("carry at most 64 questions for narinfos at once, and one for many clients", async () => {
    let now = 0;
    let most = 0;
    const cache = await serve((_, response) => {
      most = Math.max(most, ++now);
      response.on("close", () => now--);
      return false;
    });
    const { upstreams } = open([cache.url]);
    const asked = [...hashes(300), ...hashes(300)];
    await Promise.all(asked.map((hash) => upstreams.narinfo(hash, request())));
    expect(most).toBeLessThanOrEqual(65);
    expect(cache.requests.filter((path) => path.endsWith(".narinfo")).length).toBe(300);
  });
});

describe("secrets", () => {
  test("rule 7: user and password go to their own origin alone, and nowhere into messages", async () => {
    const authorizations: [string, string | undefined][] = [];
    const storage = await serve(({ headers }) => {
      authorizations.push(["storage", headers.authorization]);
      return false;
    });
    const cache = await serve(({ headers, url }, response) => {
      authorizations.push(["cache", headers.authorization]);
      if (url === "/nix-cache-info") return false;
      response.writeHead(302, { location: storage.url + url }).end();
      return true;
    });
    const { upstreams, errors } = open([cache.url.replace("//", "//user:hidden@")]);
    const hash = storeHash("a");
    expect(asGiven(await upstreams.narinfo(hash, request()))).toBe(narinfo(hash));
    expect(await narOf(upstreams, "nar/x.nar")).toBe(NAR);
    const basic = `Basic ${btoa("user:hidden")}`;
    expect(new Set(authorizations.map(String))).toEqual(new Set([`cache,${basic}`, "storage,"]));
    await storage.close();
    expect(await narOf(upstreams, "nar/y.nar")).toBe("failed");
    expect(errors.length).toBe(1);
    expect(JSON.stringify([errors, upstreams.status()])).not.toContain("hidden");
  });
});

test("a Range goes through to the upstream, and its 206 comes back", async () => {
  const cache = await serve(({ headers }, response) => {
    if (headers.range !== "bytes=5-9") return false;
    response.writeHead(206, { "content-range": "bytes 5-9/10" }).end("56789");
    return true;
  });
  const { upstreams } = open([cache.url]);
  const found = (await upstreams.nar("nar/x.nar", request({ range: "bytes=5-9" }))) as Response;
  expect([found.status, found.headers.get("content-range"), await found.text()]).toEqual([
    206,
    "bytes 5-9/10",
    "56789",
  ]);
});
