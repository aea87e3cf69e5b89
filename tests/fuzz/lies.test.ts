/** Registries and upstreams that lie about lengths, never end, or answer with bombs: bounded, and a plain error. */
import { afterEach, describe, expect, test } from "bun:test";
import { realHost } from "../../src/context.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { type Network, systemNetwork } from "../../src/oci/network.ts";
import { openRegistry } from "../../src/oci/registry.ts";
import { BRISK } from "../../src/oci/retry.ts";
import type { Store } from "../../src/oci/store.ts";
import { type Fetch, openUpstream } from "../../src/upstream/client.ts";
import { Cleanup } from "../support/lease.ts";
import { storeHash } from "../support/protocol.ts";
import { forgetPeak, peakMemory, repeated } from "./bombs.ts";
import { type Answer, head, type Liar, openLiar } from "./liar.ts";
import { corpus } from "./mutate.ts";
import { attemptAsync, expectMeant } from "./property.ts";

const TEN_GB = 10_000_000_000;
const MIB = 1024 * 1024;
const TRASH = new Uint8Array(64 * 1024).fill(0x5b);
/** Bytes on their way when a client turns away: buffers of sockets on both sides. */
const IN_FLIGHT = 32 * MIB;
/** What a client waits for a server that says nothing more. */
const PATIENCE_MS = 500;

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function liar(answer: Answer): Promise<Liar> {
  return cleanup.add(await openLiar(answer));
}

function registry({ host }: Liar): Store {
  const network: Network = { ...systemNetwork(realHost), sleep: async () => {} };
  const policy = { ...BRISK, attempts: 2, connectTimeoutMs: PATIENCE_MS, stallTimeoutMs: PATIENCE_MS };
  const credentials = async () => ({ username: "somebody", password: "secret-of-somebody" });
  return openRegistry(
    { kind: "registry", scheme: "http", host, repository: "o/r" },
    { host: realHost, network, policy, credentials },
  );
}

const upstream = ({ host }: Liar, timeoutMs = 5000) =>
  openUpstream(`http://${host}`, { fetch: fetch as Fetch, timeoutMs, userAgent: "test" });

/** How each way of never ending is written. */
const ENDLESS: [name: string, answer: Answer][] = [
  [
    "10 GB are promised and sent",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }));
      out.flood(TRASH);
    },
  ],
  [
    "no length, no end",
    (_, out) => {
      out.write(head({ connection: "close" }));
      out.flood(TRASH);
    },
  ],
  [
    "chunks without end",
    (_, out) => {
      out.write(head({ "transfer-encoding": "chunked" }));
      out.flood(Buffer.concat([Buffer.from("10000\r\n"), TRASH, Buffer.from("\r\n")]));
    },
  ],
  [
    "an error page without end",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }, "500 Oops"));
      out.flood(TRASH);
    },
  ],
  [
    "a refusal without end",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }, "403 No"));
      out.flood(TRASH);
    },
  ],
];

const PROMISES: [name: string, answer: Answer][] = [
  [
    "10 GB are promised, the connection closes",
    (_, out) => {
      out.write(`${head({ "content-length": TEN_GB })}{}`);
      out.end();
    },
  ],
  ["10 GB are promised, nothing follows", (_, out) => out.write(`${head({ "content-length": TEN_GB })}{}`)],
  [
    "a chunk is promised, nothing follows",
    (_, out) => out.write(`${head({ "transfer-encoding": "chunked" })}ffffffff\r\n{}`),
  ],
  [
    "chunk lengths are no numbers",
    (_, out) => {
      out.write(`${head({ "transfer-encoding": "chunked" })}zz\r\n{}\r\n`);
      out.end();
    },
  ],
  [
    "the length is negative",
    (_, out) => {
      out.write(`${head({ "content-length": -1 })}{}`);
      out.end();
    },
  ],
  [
    "two lengths",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: ${TEN_GB}\r\n\r\n{}`);
      out.end();
    },
  ],
  [
    "no HTTP",
    (_, out) => {
      out.write("\x1b[2J SSH-2.0-x\r\n\r\n");
      out.end();
    },
  ],
  [
    "status 999",
    (_, out) => {
      out.write(head({ "content-length": 0 }, "999 \x1b[31m"));
      out.end();
    },
  ],
  ["nothing at all", (_, out) => out.end()],
  ["silence", () => {}],
  [
    "a thousand headers",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\n${"x-flood: y\r\n".repeat(1000)}\r\n{}`);
      out.end();
    },
  ],
  [
    "a header of a MiB",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(MIB)}\r\n\r\n{}`);
      out.end();
    },
  ],
  [
    "headers without end",
    (_, out) => {
      out.write("HTTP/1.1 200 OK\r\n");
      out.flood(Buffer.from("x-flood: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000)));
    },
  ],
];

const REQUESTS: [name: string, codes: readonly ErrorCode[], ask: (store: Store) => Promise<unknown>][] = [
  [
    "a manifest",
    ["protocol", "unreachable", "denied", "corrupt"],
    (store) => store.readManifest("nixcache-index"),
  ],
  ["the tags", ["protocol", "unreachable", "denied", "corrupt"], (store) => store.listTags()],
];

describe.each(REQUESTS)("asking a registry for %s", (what, codes, ask) => {
  test.each([...ENDLESS, ...PROMISES])("%s", async (name, answer) => {
    const server = await liar(answer);
    forgetPeak();
    const before = peakMemory();
    const result = await attemptAsync(codes, () => ask(registry(server)));
    // The headers hide a body of two bytes, which is as good a manifest as any that is not decoded.
    if (!/^(a thousand headers|a header of a MiB)$/.test(name))
      expect([what, result]).toEqual([what, undefined]);
    // Two tries, each of the tags up to 64 MiB.
    expect(server.sent()).toBeLessThan(2 * (64 * MIB + IN_FLIGHT));
    expect(peakMemory() - before).toBeLessThan(300 * MIB);
  });
});

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

describe("tag lists", () => {
  const page = (tags: unknown, next: string): string => {
    const body = JSON.stringify({ name: "o/r", tags });
    return `${head({ "content-length": Buffer.byteLength(body), ...(next && { link: next }) })}${body}`;
  };
  const list = (server: Liar) => attemptAsync(["protocol", "corrupt"], () => registry(server).listTags());

  test("pages without end", async () => {
    let number = 0;
    const server = await liar((_, out) =>
      out.write(page([`t${number}`], `</v2/o/r/tags/list?last=${number++}>; rel="next"`)),
    );
    expect(await list(server)).toBeUndefined();
    expect(server.requests.length).toBeLessThanOrEqual(1000);
  });

  test("a few large pages", async () => {
    let number = 0;
    const tags = Array.from({ length: 100_000 }, (_, index) => `tag-${"x".repeat(50)}-${index}`);
    const server = await liar((_, out) =>
      out.write(page(tags, `</v2/o/r/tags/list?last=${number++}>; rel="next"`)),
    );
    await expect(registry(server).listTags()).rejects.toThrow(/got more than \d+ bytes/);
    expect(server.requests.length).toBeLessThan(12);
  });

  test.each([
    "https://evil.example/x",
    "//evil.example/x",
    "file:///etc/passwd",
    "javascript:1",
    "http://[",
    "\x1b",
  ])("the next page is %j", async (target) => {
    const server = await liar((_, out) => out.write(page(["a"], `<${target}>; rel=next`)));
    const result = await list(server);
    // Characters that no header may hold end at the server that is asked itself.
    if (target !== "\x1b") expect(result).toBeUndefined();
    expect(server.requests.every((request) => request.startsWith("GET /v2/o/r/"))).toBe(true);
  });

  test("names that are no tags", async () => {
    const tags = [
      "../../x",
      "a/b",
      "",
      "\x1b[2J",
      "x".repeat(129),
      "seg-1",
      7,
      null,
      { a: 1 },
      "?n=1",
      "%2e",
    ];
    const server = await liar((_, out) => out.write(page(tags, "")));
    expect(await registry(server).listTags()).toEqual(["seg-1"]);
  });
});

describe("tokens", () => {
  const challenge = (host: string, realm = `http://${host}/token`) =>
    head(
      { "content-length": 0, "www-authenticate": `Bearer realm="${realm}",service="x"` },
      "401 Unauthorized",
    );
  const bomb = repeated(0x20, 8192);
  const ANSWERS: [name: string, answer: Answer][] = [
    ...ENDLESS,
    ...PROMISES.slice(0, 4),
    [
      "a bomb",
      (_, out) => {
        out.write(head({ "content-length": bomb.length, "content-encoding": "zstd" }));
        out.write(bomb);
      },
    ],
    ...[
      '{"token":"a\\r\\nx-evil: 1"}',
      '{"token":{"a":1}}',
      '{"__proto__":{"token":"x"}}',
      "[".repeat(200_000),
      '{"token":""}',
    ].map((text): [string, Answer] => [
      text.slice(0, 40),
      (_, out) => out.write(`${head({ "content-length": text.length })}${text}`),
    ]),
  ];

  test.each(ANSWERS)("%s", async (_, answer) => {
    const server = await liar((request, out) => {
      if (request.startsWith("GET /token")) answer(request, out);
      else out.write(challenge(server.host));
    });
    forgetPeak();
    const before = peakMemory();
    const codes = ["protocol", "unreachable", "denied"] as const;
    expect(await attemptAsync(codes, () => registry(server).listTags())).toBeUndefined();
    expect(peakMemory() - before).toBeLessThan(150 * MIB);
    expect(server.requests.join("")).not.toContain("x-evil");
  });

  test.each([
    "file:///etc/passwd",
    "javascript:1",
    "http://",
    "\u009b31m",
    "x".repeat(9000),
    "ftp://127.0.0.1/",
  ])("a realm %j", async (realm) => {
    const server = await liar((_, out) => out.write(Buffer.from(challenge("", realm), "latin1")));
    try {
      await registry(server).listTags();
      throw new Error("was taken");
    } catch (error) {
      expectMeant(error, ["protocol", "unreachable"]);
      expect(String(error)).not.toContain("secret-of-somebody");
    }
  });
});

test("a refusal with a detail that is nested without end", async () => {
  const detail = `${"[".repeat(30_000)}"sha256:${"a".repeat(64)}"${"]".repeat(30_000)}`;
  const body = `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"x","detail":${detail}}]}`;
  const server = await liar((_, out) =>
    out.write(`${head({ "content-length": body.length }, "404 Not Found")}${body}`),
  );
  const write = () => registry(server).writeManifest("t", "application/octet-stream", Buffer.from("{}"));
  expect(await attemptAsync([], write)).toMatchObject({ value: { blobsMissing: true } });
});
