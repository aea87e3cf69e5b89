/**
 * The manners of a server of static files, side by side with nginx that serves the same files: what a Nix client, a
 * proxy or a person's mistake may send, byte by byte. Where we answer otherwise the table says so.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { listen, type Server } from "../../../src/commands/listen.ts";
import { realHost } from "../../../src/context.ts";
import { serveCache } from "../../../src/serve/cache.ts";
import { createGuard } from "../../../src/serve/guard.ts";
import { createHandler } from "../../../src/serve/handler.ts";
import { MemoryBudget } from "../../../src/serve/memory.ts";
import { Traffic } from "../../../src/serve/traffic.ts";
import { createUpstreams } from "../../../src/serve/upstreams.ts";
import { Cleanup } from "../../support/lease.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { describeWith } from "../../support/needs.ts";
import { startNginx, type TestNginx } from "../../support/nginx.ts";
import { commitNames, party, storeHash, testEntry } from "../../support/protocol.ts";
import { rawRequest } from "../../support/raw-http.ts";
import { ANY_UPSTREAMS } from "../../support/upstreams.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const HASH = storeHash("a");
const { line, blob } = testEntry("a");
const NARINFO = `/${HASH}.narinfo`;
const NAR = `/nar/${line.file}`;
const CACHE_INFO = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n";

let server: Server;
let nginx: TestNginx;

/** Each target is asked for with GET and with HEAD. `nginx`: where it answers otherwise, and why. */
const TARGETS: [name: string, target: string, status: number, nginx?: number][] = [
  ["a file", NARINFO, 200],
  ["a file in a folder", NAR, 200],
  ["the cache's own file", "/nix-cache-info", 200],
  ["a query", `${NARINFO}?x=1`, 200],
  ["an empty query", `${NARINFO}?`, 200],
  ["a query with a malformed escape", `${NARINFO}?%zz`, 200],
  ["a query with slashes", `${NARINFO}?a=/../b`, 200],
  ["an escaped letter", `/%${HASH.charCodeAt(0).toString(16)}${HASH.slice(1)}.narinfo`, 200],
  ["an escape in small letters", NARINFO.replace(".", "%2e"), 200],
  ["an escape in capital letters", NARINFO.replace(".", "%2E"), 200],
  ["an escaped slash", NAR.replace("/nar/", "/nar%2F"), 200],
  ["an escape that is escaped", NARINFO.replace(".", "%252e"), 404],
  ["slashes in front", `//${NARINFO}`, 200],
  ["slashes in between", NAR.replace("/nar/", "/nar///"), 200],
  ["escaped slashes in between", NAR.replace("/nar/", "/nar/%2f"), 200],
  ["a folder that is left again", `/nar/..${NARINFO}`, 200],
  ["a folder that is left by escapes", `/nar/%2e%2e${NARINFO}`, 200],
  ["a dot", `/.${NARINFO}`, 200],
  ["a name that begins with dots", `/..${HASH}.narinfo`, 404],
  ["a slash at the end", `${NARINFO}/`, 404],
  ["a slash at the end of the cache's own file", "/nix-cache-info/", 404],
  ["a slash at the end of a NAR", `${NAR}/`, 404],
  ["a file below a file", `${NARINFO}/x`, 404],
  ["a hash in capital letters", `/${HASH.toUpperCase()}.narinfo`, 404],
  ["an ending in capital letters", `/${HASH}.NARINFO`, 404],
  ["a hash that is not there", `/${storeHash("b")}.narinfo`, 404],
  ["a hash that is none", "/x.narinfo", 404],
  ["no hash", "/.narinfo", 404],
  ["an escaped blank", `${NARINFO}%20`, 404],
  ["a plus for a blank", `${NARINFO}+`, 404],
  ["a byte that is no UTF-8", "/%ff.narinfo", 404],
  ["an escape that ends early", "/%", 400],
  ["an escape with one digit", `${NARINFO}%2`, 400],
  ["an escape that is none", "/%zz", 400],
  ["a NUL", `${NARINFO}%00`, 400],
  ["a path of 4,000 characters", `/${"a".repeat(4000)}`, 404],
  // Bun resolves dots before we see them, and stays at the root where nginx complains.
  ["the folder above the root", `/..${NARINFO}`, 200, 400],
  ["two folders above the root", "/../../etc/passwd", 404, 400],
  // We decode last: what comes out is a name, not a way.
  ["a way up with an escaped slash", `/nar/..%2f${HASH}.narinfo`, 404, 200],
  // A URL may have a backslash where a path has a slash: https://url.spec.whatwg.org/#path-state
  ["a backslash", NAR.replace("/nar/", "/nar\\"), 200, 404],
  // Files have their own limit in nginx: 255 bytes for a name, which it tells as it is.
  ["a path of 9,000 characters", `/${"a".repeat(9000)}`, 404, 414],
];

/** Sent as they stand. `nginx` as above. */
const REQUESTS: [name: string, request: string, status: number, nginx?: number][] = [
  ["HTTP/1.0 without a Host", `GET ${NARINFO} HTTP/1.0`, 200],
  ["HTTP/1.0 with a Host", `GET ${NARINFO} HTTP/1.0\r\nHost: x`, 200],
  ["HTTP/1.1 without a Host", `GET ${NARINFO} HTTP/1.1`, 400],
  ["a whole URL", `GET http://elsewhere${NARINFO} HTTP/1.1\r\nHost: x`, 200],
  ["a Host in capitals with a port", `GET ${NARINFO} HTTP/1.1\r\nHOST: EXAMPLE:80`, 200],
  ...["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND"].map((method): [string, string, number] => [
    method,
    `${method} ${NARINFO} HTTP/1.1\r\nHost: x`,
    405,
  ]),
  ["TRACE", `TRACE ${NARINFO} HTTP/1.1\r\nHost: x`, 405],
];

describeWith(["nginx"], "beside nginx", () => {
  beforeAll(async () => {
    const root = mkdtempSync(join(tmpdir(), "nixcache-test-static-"));
    cleanup.add({ close: () => rm(root, { recursive: true }) });
    mkdirSync(join(root, "nar"));
    writeFileSync(join(root, NARINFO), line.narinfo);
    writeFileSync(join(root, NAR), blob.content);
    writeFileSync(join(root, "nix-cache-info"), CACHE_INFO);
    nginx = cleanup.add(await startNginx({ root }));

    const machine = party(new MemoryStore());
    cleanup.add({ close: async () => machine[Symbol.dispose]() });
    await commitNames(machine, ["a"]);
    const cache = serveCache(machine, () => {});
    await cache.refresh();
    const address = { hostname: "127.0.0.1", port: 0 };
    const handler = createHandler({
      caches: [cache],
      upstreams: createUpstreams([], { ...ANY_UPSTREAMS, host: realHost, onError() {} }),
      memory: new MemoryBudget(),
      guard: createGuard(address),
      traffic: new Traffic(),
      connections: 1,
      clock: () => 0,
      sleep: realHost.sleep,
      underWay: () => 1,
      status: () => ({}),
      metrics: () => "",
      onError() {},
    });
    server = listen(address, handler, 1024);
    cleanup.add({ close: () => server.stop(true) });
  });

  const both = (request: string) =>
    Promise.all([rawRequest(server.url.href, request), rawRequest(nginx.url, request)]);
  const header = (head: string, name: string) => new RegExp(`^${name}: (.*)$`, "im").exec(head)?.[1]?.trim();

  test.each(TARGETS)("%s", async (_, target, status, theirStatus = status) => {
    for (const method of ["GET", "HEAD"]) {
      const [ours, theirs] = await both(`${method} ${target} HTTP/1.1\r\nHost: x`);
      expect([method, ours.status, theirs.status]).toEqual([method, status, theirStatus]);
      expect(header(ours.head, "content-length")).toMatch(/^\d+$/);
      if (method === "HEAD") expect(ours.body.length).toBe(0);
      if (ours.status !== 200 || theirs.status !== 200) continue;
      expect(ours.body).toEqual(theirs.body);
      expect(header(ours.head, "content-length")).toBe(header(theirs.head, "content-length"));
    }
  });

  test.each(REQUESTS)("%s", async (_, request, status, theirStatus = status) => {
    const [ours, theirs] = await both(request);
    expect([ours.status, theirs.status]).toEqual([status, theirStatus]);
    // nginx does not say what is allowed, though https://www.rfc-editor.org/rfc/rfc9110#status.405 has it so.
    if (status === 405) expect(header(ours.head, "allow")).toBe("GET, HEAD");
  });

  test("the types are Nix's own", async () => {
    for (const [target, type] of [
      ["/nix-cache-info", "text/x-nix-cache-info"],
      [NARINFO, "text/x-nix-narinfo"],
      [NAR, "application/x-nix-nar"],
    ]) {
      for (const method of ["GET", "HEAD"]) {
        const { head } = await rawRequest(server.url.href, `${method} ${target} HTTP/1.1\r\nHost: x`);
        expect(header(head, "content-type")).toBe(type as string);
      }
    }
  });
});
