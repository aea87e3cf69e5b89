/** Registries that lie about lengths, never end, or answer with bombs: bounded, and a plain error. */
import { afterEach, describe, expect, test } from "bun:test";
import { realHost } from "../../src/context.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { type Network, systemNetwork } from "../../src/oci/network.ts";
import { openRegistry } from "../../src/oci/registry.ts";
import { BRISK } from "../../src/oci/retry.ts";
import type { Store } from "../../src/oci/store.ts";
import { Cleanup } from "../support/lease.ts";
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
import { attemptAsync, expectMeant } from "./property.ts";

const cleanup = new Cleanup();
afterEach(() => cleanup.run());

async function liar(answer: Answer): Promise<Liar> {
  return cleanup.add(await openLiar(answer));
}

function registry({ host }: Liar): Store {
  const network: Network = { ...systemNetwork(realHost), sleep: async () => {} };
  const policy = { ...BRISK, attempts: 2, connectTimeoutMs: PATIENCE_MS, stallTimeoutMs: PATIENCE_MS };
  const credentials = async () =>
    ({ kind: "password", username: "somebody", password: "secret-of-somebody" }) as const;
  return openRegistry(
    { kind: "registry", scheme: "http", host, repository: "o/r" },
    { host: realHost, network, policy, credentials },
  );
}

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

describe("tag lists", () => {
  const page = (tags: unknown, next: string): string => {
    const body = JSON.stringify({ name: "o/r", tags });
    return `${head({ "content-length": Buffer.byteLength(body), ...(next && { link: next }) })}${body}`;
  };
  const list = (server: Liar) =>
    attemptAsync(["protocol", "corrupt", "unreachable"], () => registry(server).listTags());

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

  test("the next page is at another server, which is not asked", async () => {
    const other = await liar((_, out) => out.write(page(["b"], "")));
    const server = await liar((_, out) =>
      out.write(page(["a"], `<http://${other.host}/v2/o/r/tags/list>; rel=next`)),
    );
    expect(await list(server)).toBeUndefined();
    expect(other.requests).toEqual([]);
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
    await received(server);
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
