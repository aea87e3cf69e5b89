/** Upstreams that lie about lengths, never end, or answer with bombs or with something else: no narinfo, in time. */
import { afterEach, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { DIRECT_WEB } from "../../src/network/web.ts";
import { openUpstream } from "../../src/upstream/client.ts";
import { Cleanup } from "../support/lease.ts";
import { storeHash } from "../support/protocol.ts";
import { forgetPeak, peakMemory, repeated } from "./bombs.ts";
import {
  type Answer,
  ENDLESS,
  head,
  IN_FLIGHT,
  type Liar,
  MIB,
  openLiar,
  PATIENCE_MS,
  PROMISES,
  received,
} from "./liar.ts";
import { corpus, mutatedText } from "./mutate.ts";
import { attemptAsync, fuzz } from "./property.ts";

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function liar(answer: Answer): Promise<Liar> {
  return cleanup.add(await openLiar(answer));
}

const OPTIONS = { web: DIRECT_WEB, timeoutMs: 5000, stallMs: 5000, userAgent: "test" };

const upstream = ({ host }: Liar, timeoutMs = 5000) =>
  openUpstream(`http://${host}`, { ...OPTIONS, timeoutMs });

describe("asking an upstream for a narinfo", () => {
  const ask = (server: Liar, timeoutMs = PATIENCE_MS) =>
    attemptAsync(["unreachable"], () => upstream(server, timeoutMs).narinfo(storeHash("a")));

  test.each([...ENDLESS.slice(0, 4), ...PROMISES])("%s", async (_, answer) => {
    const server = await liar(answer);
    forgetPeak();
    const before = peakMemory();
    expect(await ask(server)).toBeUndefined();
    expect(server.sent()).toBeLessThan(IN_FLIGHT + MIB);
    expect(peakMemory() - before).toBeLessThan(150 * MIB);
  });

  test.each([
    ["zstd", repeated(0x20, 8192)],
    ["gzip", Bun.gzipSync(new Uint8Array(64 * MIB))],
  ])("a bomb of %s", async (encoding, bomb) => {
    const server = await liar((_, out) => {
      out.write(head({ "content-length": bomb.length, "content-encoding": encoding }));
      out.write(bomb);
    });
    forgetPeak();
    const before = peakMemory();
    expect(await ask(server, 30_000)).toBeUndefined();
    await received(server);
    // It unpacks to 1 GiB; fetch by itself takes 400 MiB more.
    expect(peakMemory() - before).toBeLessThan(100 * MIB);
  });

  const narinfo = Buffer.from(corpus("narinfo")[1] ?? []).toString();
  const hash = /store\/([0-9a-z]{32})/.exec(narinfo)?.[1] ?? "";

  test.each<[string, Record<string, string>, (text: string) => Uint8Array<ArrayBuffer>]>([
    ["plain", {}, (text) => new Uint8Array(Buffer.from(text))],
    ["gzip", { "content-encoding": "gzip" }, (text) => Bun.gzipSync(text)],
    ["zstd", { "content-encoding": "zstd" }, (text) => new Uint8Array(Bun.zstdCompressSync(text))],
  ])("one that is right, %s, and others that are not its", async (_, headers, pack) => {
    const answers: [string, boolean][] = [
      [narinfo, true],
      [narinfo.replaceAll(hash, storeHash("z")), false],
      ["<html><body>Please sign in</body></html>\n", false],
      [narinfo.slice(0, -1), false],
      [narinfo.replaceAll("\n", "\r\n"), false],
      ["", false],
    ];
    for (const [text, right] of answers) {
      const body = pack(text);
      const server = await liar((_request, out) => {
        out.write(head({ "content-length": body.length, ...headers }));
        out.write(body);
      });
      const result = await attemptAsync(["unreachable"], () => upstream(server).narinfo(hash));
      expect(result?.value).toBe(right ? text : undefined);
    }
  });

  test("a NAR in an encoding that nobody asked for", async () => {
    const server = await liar((_, out) =>
      out.write(`${head({ "content-length": 2, "content-encoding": "gzip" })}{}`),
    );
    const ask = () => upstream(server).request("nar/x.nar", { method: "GET" });
    expect(await attemptAsync(["unreachable"], ask)).toBeUndefined();
    expect(server.requests[0]).toMatch(/accept-encoding: identity/i);
  });
});

test("the URL of an upstream", () => {
  const urls = [
    "https://cache.example.org/a/",
    "http://user:p%40ss@127.0.0.1:1",
    "https://[::1]/%2e",
    "http://%zz@x/",
  ];
  const inputs = fc.oneof(
    mutatedText([...corpus("reference"), ...urls.map((url) => new TextEncoder().encode(url))]),
    fc.constantFrom(...urls),
  );
  fuzz(
    inputs,
    1500,
    ["usage"],
    (text) => openUpstream(text, OPTIONS),
    ({ url }) => {
      expect(new URL(url).username + new URL(url).password).toBe("");
    },
  );
});
