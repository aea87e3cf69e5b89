/** Where servers may lead us: by redirects, places of uploads and token realms. No network but in memory. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";
import { reachOf } from "../../../src/network/address.ts";
import type { Web } from "../../../src/network/egress.ts";
import type { Credentials } from "../../../src/oci/credentials.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { parseReference, type RegistryReference } from "../../../src/oci/reference.ts";
import { openRegistry } from "../../../src/oci/registry.ts";
import { openUpstream } from "../../../src/upstream/client.ts";
import { bytesOf } from "../../contract/oci/helpers.ts";
import { testNetwork } from "../oci/network.ts";

interface World extends Web {
  /** URL and Host header of every request, in order. */
  readonly asked: string[];
  readonly headers: Headers[];
}

const SECRET = "the secret of whoever listens there";

/** @param answers by the beginning of a URL; anything else answers with a secret */
function world(
  answers: Readonly<Record<string, (url: URL) => Response>>,
  addresses: Readonly<Record<string, readonly string[]>> = {},
  mayPin = false,
): World {
  const asked: string[] = [];
  const seen: Headers[] = [];
  return {
    asked,
    headers: seen,
    async fetch(url, init) {
      const headers = new Headers(init.headers);
      const host = headers.get("host");
      asked.push(host === null ? url : `${url} as ${host}`);
      seen.push(headers);
      expect(init.redirect).toBe("manual");
      const start = Object.keys(answers).find((beginning) => url.startsWith(beginning));
      return start === undefined ? new Response(SECRET) : (answers[start]?.(new URL(url)) ?? new Response());
    },
    names: {
      async lookup(name) {
        const found = addresses[name] ?? (name.endsWith(".example") ? ["203.0.113.7"] : []);
        if (found.length === 0) throw Object.assign(new Error("ENOTFOUND"), { code: "ENOTFOUND" });
        return found;
      },
      isProxied: () => false,
      mayPin,
      isHere: (address) => address === "198.51.100.9",
      isOwn: (address, port) => port === 37515 && address === "127.0.0.1",
    },
  };
}

const to = (location: string) => () => new Response(null, { status: 302, headers: { location } });

const upstreamIn = (web: Web, url = "https://cache.example") =>
  openUpstream(url, { web, timeoutMs: 2_000, stallMs: 2_000, userAgent: "test" });

const NAR = "nar/x.nar.xz";
const HASH = "0".repeat(32);

/** This machine, its networks, and a cloud's metadata service, as strangers spell them. */
const INSIDE = [
  ...["127.0.0.1", "127.1", "0x7f.0.0.1", "2130706433", "017700000001", "0", "0.0.0.0", "127.255.255.254"],
  ...["%31%32%37.0.0.1", "127.0.0.1.", "LOCALHOST", "localhost.", "a.b.localhost", "user:pass@127.0.0.1"],
  ...["[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[::127.0.0.1]"],
  ...["[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::ffff:0:127.0.0.1]", "169.254.169.254", "[fe80::1]"],
  ...["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "[fd00::1]"],
  ...["[fec0::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a9fe:a9fe]", "255.255.255.255", "224.0.0.1", "[ff02::1]"],
];

describe("S8: an upstream that redirects inside is not followed", () => {
  test.each(INSIDE)("to https://%s/", async (host) => {
    const web = world({ "https://cache.example/": to(`https://${host}/admin`) });
    const upstream = upstreamIn(web);
    const refusal =
      /cache\.example leads there, and .* is (an address of this machine|an? .*network|a link-local)/;
    await expect(upstream.request(NAR, { method: "GET" })).rejects.toThrow(refusal);
    await expect(upstream.narinfo(HASH)).rejects.toThrow(refusal);
    expect(web.asked).toEqual([`https://cache.example/${NAR}`, `https://cache.example/${HASH}.narinfo`]);
  });

  test.each([
    ["a name", ["10.1.2.3"]],
    ["a name that has a public address besides", ["203.0.113.9", "127.0.0.1"]],
    ["a name with a mapped address", ["::ffff:127.0.0.1"]],
  ])("by %s", async (_, addresses) => {
    const web = world({ "http://cache.example/": to("http://evil.example/") }, { "evil.example": addresses });
    const asked = upstreamIn(web, "http://cache.example").request(NAR, { method: "GET" });
    await expect(asked).rejects.toThrow("cache.example leads there, and evil.example (");
    expect(web.asked).toHaveLength(1);
  });

  test("by a chain of redirects that begins outside", async () => {
    const web = world({
      "https://cache.example/": to("https://b.example/1"),
      "https://b.example/1": to("//c.example/2"),
      "https://c.example/2": to("https://[::1]:8443/3"),
    });
    await expect(upstreamIn(web).request(NAR, { method: "GET" })).rejects.toThrow(
      "an address of this machine",
    );
    expect(web.asked).toHaveLength(3);
  });

  test("by a name that means another address a moment later", async () => {
    const addresses = { "evil.example": ["203.0.113.9"] };
    const web = world({ "http://cache.example/": to("http://evil.example:81/x") }, addresses, true);
    await upstreamIn(web, "http://cache.example").request(NAR, { method: "GET" });
    expect(web.asked).toEqual([`http://cache.example/${NAR}`, "http://203.0.113.9:81/x as evil.example:81"]);
  });

  test("of several addresses the next is asked where nobody listens", async () => {
    const addresses = { "two.example": ["2001:db8::1", "203.0.113.9"] };
    const web = world({ "http://cache.example/": to("http://two.example/x") }, addresses, true);
    const half: Web = {
      ...web,
      fetch: async (url, init) => {
        if (url.includes("[")) throw Object.assign(new Error("refused"), { code: "ConnectionRefused" });
        return web.fetch(url, init);
      },
    };
    await upstreamIn(half, "http://cache.example").request(NAR, { method: "GET" });
    expect(web.asked.at(-1)).toBe("http://203.0.113.9/x as two.example");
  });
});

test.each([
  ["http://10.0.0.1", "http://192.168.7.7/x", true],
  ["http://10.0.0.1", "http://[fd00::1]/x", true],
  ["http://10.0.0.1", "http://127.0.0.1/x", false],
  ["http://10.0.0.1", "http://169.254.169.254/x", false],
  ["http://127.0.0.1:1", "http://127.0.0.1:2/x", true],
  ["http://localhost:1", "http://[::1]:2/x", true],
  ["http://127.0.0.1:1", "http://10.0.0.1/x", true],
  ["http://127.0.0.1:1", "http://169.254.169.254/x", false],
  ["http://inside.example", "http://10.0.0.1/x", true],
  ["http://both.example", "http://10.0.0.1/x", false],
  // A public address of this machine.
  ["http://cache.example", "http://198.51.100.9/x", false],
  ["http://10.0.0.1", "http://198.51.100.9/x", false],
  ["http://198.51.100.9:1", "http://198.51.100.9:2/x", true],
  ["http://198.51.100.9:1", "http://198.51.100.8/x", true],
  // Where serve itself listens nobody leads it.
  ["http://127.0.0.1:1", "http://127.0.0.1:37515/_status", false],
  ["http://127.0.0.1:1", "http://localhost:37515/_status", false],
  ["http://127.0.0.1:1", "http://[::ffff:127.0.0.1]:8/x", true],
])("S8: an upstream at %s leads to %s: %p", async (base, location, isFollowed) => {
  const addresses = { "inside.example": ["10.9.9.9"], "both.example": ["10.9.9.9", "203.0.113.1"] };
  const web = world(
    { [base]: (url) => (url.pathname === `/${NAR}` ? to(location)() : new Response(SECRET)) },
    addresses,
  );
  const asked = upstreamIn(web, base).request(NAR, { method: "GET" });
  if (isFollowed) expect(await (await asked)?.text()).toBe(SECRET);
  else await expect(asked).rejects.toThrow("leads there");
  expect(web.asked).toHaveLength(isFollowed ? 2 : 1);
});

describe("S8: what an upstream is asked with", () => {
  test("its password goes to its own origin alone", async () => {
    const locations = ["https://cache.example/2", "https://cdn.example/3", "https://cache.example:444/4"];
    let at = 0;
    const next = () => (locations[at] ? to(locations[at++] ?? "")() : new Response("bytes"));
    const web = world({ "https://": next });
    const upstream = upstreamIn(web, "https://me:hunter2@cache.example");
    await upstream.request(NAR, { method: "GET", headers: { range: "bytes=1-" } });
    expect(web.headers.map((headers) => headers.has("authorization"))).toEqual([true, true, false, false]);
    expect(web.headers.every((headers) => headers.get("range") === "bytes=1-")).toBe(true);
  });

  test.each([
    "http://cache.example/x",
    "http://other.example/x",
    "ftp://other.example/x",
    "file:///etc/passwd",
  ])("not by %s after HTTPS", async (location) => {
    const web = world({ "https://cache.example/": to(location) });
    await expect(upstreamIn(web).request(NAR, { method: "GET" })).rejects.toThrow("expected https:");
    expect(web.asked).toHaveLength(1);
  });

  test("no user of a Location, and no end of redirects", async () => {
    const web = world({ "https://cache.example/": to("https://me:hunter2@cache.example/again") });
    await expect(upstreamIn(web).request(NAR, { method: "GET" })).rejects.toThrow(
      "got more than 5 redirects",
    );
    expect(web.asked).toHaveLength(6);
    expect(web.asked.join()).not.toContain("hunter2");
  });
});

const BLOB = new TextEncoder().encode("0123456789");
const DIGEST = digestOf(BLOB);

function registryIn(web: Web, reference = "registry.example/me/cache", credentials?: Credentials) {
  const network = { ...testNetwork(), ...web };
  return openRegistry(parseReference(reference) as RegistryReference, {
    ...{ host: network, network },
    credentials: async () => credentials,
  });
}

describe("S27: a registry that leads inside is not followed", () => {
  const range = { offset: 2, length: 3 };
  test.each(INSIDE)("to https://%s/ for a blob, a range of one, or an upload", async (host) => {
    const web = world({
      "https://registry.example/v2/": () =>
        new Response(null, { status: 307, headers: { location: `https://${host}/blob` } }),
    });
    const store = registryIn(web);
    await expect(store.readBlob(DIGEST)).rejects.toThrow("registry.example leads there");
    await expect(store.readBlob(DIGEST, { range })).rejects.toThrow("registry.example leads there");
    const source = { digest: DIGEST, size: BLOB.length, content: BLOB };
    await expect(store.writeBlob(source)).rejects.toThrow("registry.example leads there");
    expect(web.asked.every((url) => url.startsWith("https://registry.example/v2/"))).toBe(true);
  });

  test("a link to storage that was good is looked at again", async () => {
    const addresses: Record<string, readonly string[]> = { "storage.example": ["203.0.113.5"] };
    const bytes = () =>
      new Response(BLOB.slice(2, 5), { status: 206, headers: { "content-range": "bytes 2-4/10" } });
    const web = world(
      {
        "https://registry.example/v2/": to("https://storage.example/blob"),
        "https://storage.example/": bytes,
      },
      addresses,
    );
    const store = registryIn(web);
    expect(await bytesOf(await store.readBlob(DIGEST, { range }))).toEqual(BLOB.slice(2, 5));
    addresses["storage.example"] = ["127.0.0.1"];
    const before = web.asked.length;
    await expect(store.readBlob(DIGEST, { range })).rejects.toThrow("registry.example leads there");
    expect(web.asked.slice(before).every((url) => url.startsWith("https://registry.example/"))).toBe(true);
  });
});

describe("S26: who gets a password", () => {
  const PASSWORD: Credentials = { kind: "password", username: "me", password: "hunter2" };
  const IDENTITY: Credentials = { kind: "identity-token", token: "hunter2" };
  const PLAIN = "http://registry.example:5000/me/cache";
  test.each<[string, string, boolean]>([
    [PLAIN, "http://auth.example/token", false],
    [PLAIN, "http://registry.example.evil.example/token", false],
    [PLAIN, "http://registry.example@evil.example/token", false],
    [PLAIN, "http://registry.example:5001/token", true],
    [PLAIN, "http://REGISTRY.example:5000/token", true],
    [PLAIN, "https://auth.example/token", true],
    ["registry.example/me/cache", "https://auth.example/token", true],
    ["registry.example/me/cache", "http://registry.example/token", false],
    ["registry.example/me/cache", "https://127.0.0.1/token", false],
    ["registry.example/me/cache", "https://169.254.169.254/token", false],
    ["127.0.0.1:5000/me/cache", "http://localhost:5001/token", true],
    ["127.0.0.1:5000/me/cache", "http://auth.example/token", false],
    ["https://127.0.0.1:5000/me/cache", "http://auth.example/token", false],
  ])("of %s the realm %s: %p", async (reference, realm, gets) => {
    for (const credentials of [PASSWORD, IDENTITY]) {
      const { scheme, host } = parseReference(reference) as RegistryReference;
      const challenge = { "www-authenticate": `Bearer realm="${realm}",service="s"` };
      const web = world({
        [`${scheme}://${host}/v2/`]: () => new Response(null, { status: 401, headers: challenge }),
        [new URL(realm).origin]: () => Response.json({ token: "t" }),
      });
      const error = await registryIn(web, reference, credentials)
        .listTags()
        .catch((thrown) => thrown);
      expect(error).toBeInstanceOf(NixcacheError);
      const realms = web.asked.filter((url) => new URL(url).pathname === "/token");
      expect([credentials.kind, realms.length > 0]).toEqual([credentials.kind, gets]);
    }
  });

  test("a realm on another host gives tokens to nobody in particular", async () => {
    const challenge = { "www-authenticate": 'Bearer realm="http://auth.example/token",service="s"' };
    const web = world({
      "http://registry.example:5000/v2/": () => new Response(null, { status: 401, headers: challenge }),
      "http://auth.example/token": () => Response.json({ token: "t" }),
    });
    await registryIn(web, PLAIN)
      .listTags()
      .catch(() => {});
    expect(web.asked.some((url) => url.startsWith("http://auth.example/token"))).toBe(true);
    expect(web.headers.some((headers) => headers.get("authorization")?.startsWith("Basic"))).toBe(false);
  });
});

test("S8: ranges of addresses end where they end", () => {
  const of = (addresses: string) => addresses.split(" ").map(reachOf);
  expect(new Set(of("9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 100.63.255.255 100.128.0.0"))).toEqual(
    new Set(["public"]),
  );
  expect(
    new Set(of("169.253.1.1 128.0.0.1 126.255.255.255 2606:4700::1 ::ffff:8.8.8.8 2002:808:808::")),
  ).toEqual(new Set(["public"]));
});

/** What opens a connection, by any of the ways that Bun has. */
const CONNECTS =
  /(?<![\w.#"'`-])fetch\(|\.fetch\(|\bcreateFetch\(|\bofetch\(|\bBun\.connect\b|new WebSocket|\b(?:from|import\() ?"node:(?:https?|net|tls|http2|dgram|dns(?:\/promises)?)"|\bdns\.lookup\b|\.names\.lookup\b/g;

test("S8: nobody but the door asks the network", async () => {
  const root = join(import.meta.dir, "../../../src");
  const found: string[] = [];
  for await (const file of new Bun.Glob("**/*.ts").scan({ cwd: root })) {
    // What runs in a browser asks the server that it came from.
    if (file.startsWith("serve/page/client/")) continue;
    const text = (await Bun.file(join(root, file)).text()).replace(/^\s*(?:\*|\/\/|\/\*).*$/gm, "");
    for (const [use] of text.matchAll(CONNECTS)) found.push(`${file}: ${use}`);
  }
  expect(found.sort()).toEqual([
    'network/address.ts: from "node:net"',
    "network/egress.ts: .fetch(",
    "network/web.ts: dns.lookup",
    "network/web.ts: fetch(",
    // ofetch over `outward`.
    "oci/hop.ts: createFetch(",
    "oci/token.ts: createFetch(",
    'serve/guard.ts: from "node:net"',
    // Looks at what a server speaks to which fetch could not talk; it sends nothing.
    'system/wrong-protocol.ts: from "node:tls"',
  ]);
});
