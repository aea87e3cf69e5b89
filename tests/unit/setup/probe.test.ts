import { expect, test } from "bun:test";
import { type Answerer, probe } from "../../../src/setup/probe.ts";

const INFO = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 30\n";
const STATUS = {
  version: "1.2.3",
  index_ttl: 300,
  caches: [{ repo: "ghcr.io/a/b/nix-cache", index_refreshed: "2026-01-01T00:00:00Z", index_error: null }],
};

/** A server of two paths; what is a number is a status without a body. */
async function ask(info: string | number, status: string | number): Promise<Answerer> {
  const answer = (of: string | number) =>
    typeof of === "number" ? new Response("no", { status: of }) : new Response(of);
  const fetch = async (url: string) => {
    if (url === "http://x/nix-cache-info") return answer(info);
    if (url === "http://x/_status") return answer(status);
    throw new Error(`asked for ${url}`);
  };
  return probe("http://x", fetch, new AbortController().signal);
}

const CACHES = [{ name: "ghcr.io/a/b/nix-cache", refreshed: "2026-01-01T00:00:00Z", error: null }];

test.each<[string, string | number, string | number, Answerer]>([
  [
    "we",
    INFO,
    JSON.stringify(STATUS),
    { kind: "nixcache", ready: true, version: "1.2.3", ttl: 300, caches: CACHES },
  ],
  [
    "we, without an index",
    503,
    JSON.stringify(STATUS),
    { kind: "nixcache", ready: false, version: "1.2.3", ttl: 300, caches: CACHES },
  ],
  ["another cache", INFO, 404, { kind: "cache" }],
  ["another cache with another status", INFO, '{"version":1}', { kind: "cache" }],
  ["a page", "<html>\nhello", "<html>", { kind: "stranger", found: '200 "<html>"' }],
  ["nonsense", 404, "null", { kind: "stranger", found: '404 "no"' }],
])("%s", async (_, info, status, expected) => {
  expect(await ask(info, status)).toEqual(expected);
});

test("nobody, and one who does not answer in time", async () => {
  const refuse = async () => {
    throw Object.assign(new Error("Unable to connect."), { code: "ECONNREFUSED" });
  };
  const signal = new AbortController();
  expect(await probe("http://x", refuse, signal.signal)).toEqual({
    kind: "nobody",
    reason: "nothing listens there",
  });
  signal.abort();
  expect(await probe("http://x", refuse, signal.signal)).toEqual({
    kind: "nobody",
    reason: "no answer in time",
  });
});

test("an endless answer is not read to its end", async () => {
  let sent = 0;
  const endless = async () =>
    new Response(
      new ReadableStream({
        pull(controller) {
          sent++;
          controller.enqueue(new Uint8Array(65536));
        },
      }),
    );
  expect((await probe("http://x", endless, new AbortController().signal)).kind).toBe("stranger");
  expect(sent).toBeLessThan(100);
});
