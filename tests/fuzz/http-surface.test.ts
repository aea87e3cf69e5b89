/**
 * The HTTP surface of the compiled `nixcache serve`, through raw sockets: whatever comes is answered or closed,
 * nothing bad is a 5xx, and the next good request gets its answer.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { realHost } from "../../src/context.ts";
import { openStore } from "../../src/oci/open.ts";
import { BRISK } from "../../src/oci/retry.ts";
import { fold } from "../../src/protocol/fold.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { commitNames, party, storeHash, testEntry } from "../support/protocol.ts";
import { corpus, mutated } from "./mutate.ts";
import { parameters, runs } from "./property.ts";
import { blames, exchange as exchangeWith, statuses } from "./raw-exchange.ts";
import { NO_REQUESTS, TARGETS } from "./requests.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const MIB = 1024 * 1024;
const AT_ONCE = 16;

const narinfo = `/${storeHash("a")}.narinfo`;
const nar = `/nar/${testEntry("a").line.file}`;

let cli: Cli;
let server: CliServer;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  const path = cli.path("cache");
  using machine = party(openStore({ kind: "layout", path }, { policy: BRISK, host: realHost }));
  await commitNames(machine, ["a", "b"]);
  await fold(machine);
  server = await cli.serve(["--cache", path, "--upstream", ""]);
  expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
});

const exchange = (...pieces: (string | Uint8Array)[]) => exchangeWith(server.url, ...pieces);

async function expectAlive(): Promise<void> {
  const good = await exchange(`GET ${narinfo} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
  expect(good).toStartWith("HTTP/1.1 200");
  expect(good).toEndWith(testEntry("a").line.narinfo);
}

/** Sends it and fails when the answer blames the server, then asks for something good. */
async function survives(...pieces: (string | Uint8Array)[]): Promise<number[]> {
  const found = statuses(await exchange(...pieces));
  expect(blames(found)).toEqual([]);
  await expectAlive();
  return found;
}

const get = (target: string, headers = "Host: x\r\n"): string =>
  `GET ${target} HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`;

describe("requests that are none", () => {
  test.each(NO_REQUESTS)("%j", async (request) => {
    const found = await survives(request);
    expect(found.every((status) => [200, 400, 403, 404, 405, 414, 431, 505].includes(status))).toBe(true);
  });
});

describe("methods", () => {
  test.each([
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "get",
    "X".repeat(500),
    "G%54",
  ])("%s", async (method) => {
    for (const target of [narinfo, "/", "*", "/_refresh", "http://x/nix-cache-info"]) {
      await survives(
        `${method} ${target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`,
      );
    }
  });
});

describe("targets", () => {
  test.each(TARGETS)("%j", async (target) => {
    const found = await survives(get(target));
    // Some mean the page, which nobody sees who calls us by a name that is not ours.
    expect(found.every((status) => [400, 403, 404, 405, 414, 431, 505].includes(status))).toBe(true);
  });

  test("what is good in another form is good", async () => {
    const escaped = [...narinfo.slice(1)].map((c) => `%${c.charCodeAt(0).toString(16)}`).join("");
    for (const target of [`/${escaped}`, `http://other:1${narinfo}`, `${narinfo}?x=%zz`]) {
      expect([target, await survives(get(target))]).toEqual([target, [200]]);
    }
    expect(await survives(get(narinfo, ""))).toEqual([400]);
    expect(await survives(`GET ${narinfo} HTTP/1.0\r\n\r\n`)).toEqual([200]);
  });
});

describe("headers", () => {
  test.each([
    ...[
      "bytes=",
      "bytes=-",
      "bytes=-0",
      "bytes=9-1",
      "bytes=1-2,3-4,-5",
      "bytes=99999999999999999999-",
      "bytes=0-0x10",
    ],
    ...[
      "lines=1-2",
      "bytes=\u00e9",
      `bytes=${"0-1,".repeat(3000)}`,
      "bytes=NaN-Infinity",
      "bytes =0-1",
      "BYTES=0-1",
    ],
  ])("Range: %s", async (range) => {
    const found = await survives(get(nar, `Host: x\r\nRange: ${range}\r\n`));
    expect(found.every((status) => [200, 206, 400, 416, 431].includes(status))).toBe(true);
  });

  test.each([
    ["a thousand", "x-flood: y\r\n".repeat(1000)],
    ["a hundred thousand", "x-flood: y\r\n".repeat(100_000)],
    ["one of a MiB", `x: ${"y".repeat(MIB)}\r\n`],
    ["one name of a MiB", `${"y".repeat(MIB)}: x\r\n`],
    ["control characters", "x: \x1b[2J\x07\r\n"],
    ["a NUL", "x: a\0b\r\n"],
    ["lengths that contradict", "Content-Length: 1\r\nContent-Length: 2\r\n"],
    ["a length beside chunks", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"],
    ["a length that is none", "Content-Length: -1\r\n"],
    ["a length of 10 GB", "Content-Length: 10000000000\r\n"],
    ["a length beyond 64 bits", `Content-Length: ${"9".repeat(30)}\r\n`],
    ["an encoding that is none", "Transfer-Encoding: zstd, x\r\n"],
    ["a condition", 'If-None-Match: "\r\nIf-Modified-Since: x\r\n'],
  ])("%s", async (_, headers) => {
    const found = await survives(get(narinfo, `Host: x\r\n${headers}`));
    expect(found.every((status) => [200, 400, 404, 413, 431].includes(status))).toBe(true);
  });
});

describe("bodies", () => {
  test.each([
    ["chunks that are none", "Transfer-Encoding: chunked", "zz\r\nhello\r\n"],
    ["a chunk of 2^64", "Transfer-Encoding: chunked", "ffffffffffffffff\r\nhello"],
    ["a chunk length of a MiB", "Transfer-Encoding: chunked", "0".repeat(MIB)],
    ["a chunk that breaks off", "Transfer-Encoding: chunked", "ffff\r\nhello"],
    ["more than is taken", "Transfer-Encoding: chunked", `100000\r\n${"x".repeat(MIB)}\r\n0\r\n\r\n`],
    ["a MiB", `Content-Length: ${MIB}`, "x".repeat(MIB)],
    ["less than was said", "Content-Length: 1000", "x"],
  ])("%s", async (_, header, body) => {
    for (const [method, target] of [
      ["POST", "/_refresh"],
      ["PUT", narinfo],
      ["GET", narinfo],
    ]) {
      await survives(
        `${method} ${target} HTTP/1.1\r\nHost: x\r\n${header}\r\nConnection: close\r\n\r\n`,
        body,
      );
    }
  });
});

test("many requests on one connection, good and bad ones", async () => {
  const good = `GET ${narinfo} HTTP/1.1\r\nHost: x\r\n\r\n`;
  const missing = "GET /x HTTP/1.1\r\nHost: x\r\n\r\n";
  const found = await survives(`${good}${missing}`.repeat(500) + get(narinfo));
  expect(found).toEqual([...Array.from({ length: 500 }, () => [200, 404]).flat(), 200]);
  expect((await survives(`${good}\0\0\0${good}`))[0]).toBe(200);
});

test(
  "bent requests",
  async () => {
    const list = fc.array(mutated(corpus("http")), { minLength: AT_ONCE, maxLength: AT_ONCE });
    await fc.assert(
      fc.asyncProperty(list, async (requests) => {
        const answers = await Promise.all(requests.map((request) => exchange(request)));
        for (const answer of answers) expect(blames(statuses(answer))).toEqual([]);
        await expectAlive();
      }),
      { ...parameters(120), endOnFailure: true },
    );
  },
  120_000 * runs(1),
);

test("some thousand requests leave no memory behind", async () => {
  const requests = [
    get(narinfo),
    get(nar),
    get("/x"),
    get("/%zz"),
    "GET / HTTP/1.1\r\nHost: x\r\nX: y",
    get(narinfo, `X: ${"y".repeat(10_000)}\r\n`),
  ];
  const round = async (count: number) => {
    for (let done = 0; done < count; done += AT_ONCE) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, (_, index) =>
          exchange(requests[(done + index) % requests.length] ?? ""),
        ),
      );
    }
  };
  await round(500);
  const warm = server.peakRss();
  await round(3000);
  await expectAlive();
  // Some 10 MiB of it is the garbage collector taking its time.
  expect(server.peakRss() - warm).toBeLessThan(64 * MIB);
  expect(server.peakRss()).toBeLessThan(400 * MIB);
  expect(server.log()).not.toMatch(/a defect|TypeError|RangeError|\p{Cc}(?<!\n)/u);
});
