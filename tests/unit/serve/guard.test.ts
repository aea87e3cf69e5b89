import { describe, expect, test } from "bun:test";
import { createGuard, isLoopback } from "../../../src/serve/guard.ts";

/** `undefined` where the request may pass, else the first words of the refusal. */
function judge(hostname: string, method: string, headers: Record<string, string>, allowHosts: string[] = []) {
  const guard = createGuard({ hostname, allowHosts });
  return guard({ method, headers: new Headers(headers) })
    ?.split(" ", 3)
    .join(" ");
}

const UNKNOWN = "the host name";
const OTHERS = "requests of other";

describe("on loopback the name must be known", () => {
  test.each([
    "127.0.0.1:37515",
    "127.0.0.1",
    "127.1.2.3:1",
    "localhost:37515",
    "LOCALHOST",
    "localhost.:80",
    "cache.localhost:37515",
    "[::1]:37515",
    "[::1]",
    "192.168.0.7:37515",
    "nas.example:37515",
    "NAS.example.",
  ])("%s", (host) => {
    for (const method of ["GET", "HEAD", "POST", "PUT"]) {
      expect(judge("127.0.0.1", method, { host }, ["Nas.Example"])).toBeUndefined();
    }
  });

  test.each([
    "evil.example:37515",
    "localhost.evil.example",
    "evil-localhost",
    "127.0.0.1.evil.example",
    "127.0.0.1, evil.example",
    "nas.example.evil.example",
    "user@localhost",
    "localhost:x",
    "127.0.0.1:1:2",
    "[::1",
    "::1",
    "",
    " ",
    "2130706433",
  ])("%j is refused", (host) => {
    for (const method of ["GET", "POST"]) {
      expect(judge("127.0.0.1", method, { host }, ["nas.example"])).toBe(UNKNOWN);
      expect(judge("::1", method, { host }, ["nas.example"])).toBe(UNKNOWN);
      expect(judge("localhost", method, { host }, ["nas.example"])).toBe(UNKNOWN);
    }
  });

  test("the sentence quotes the name and says what to do", () => {
    const guard = createGuard({ hostname: "127.0.0.1" });
    expect(guard({ method: "GET", headers: new Headers({ host: "evil.example" }) })).toBe(
      'the host name "evil.example" is not known here; allow it with: nixcache serve --allow-host NAME',
    );
  });

  test("a request without Host is no browser's", () => {
    expect(judge("127.0.0.1", "POST", {})).toBeUndefined();
  });

  test("on a network any name is good, and a name that is listened on is known", () => {
    for (const hostname of ["0.0.0.0", "::", "192.168.0.7", "nas"]) {
      expect(judge(hostname, "POST", { host: "whatever.example" })).toBeUndefined();
    }
  });
});

describe("what changes something must not come from another site", () => {
  const host = "127.0.0.1:37515";

  test.each<[name: string, headers: Record<string, string>]>([
    ["a program", {}],
    ["our own page", { "sec-fetch-site": "same-origin", origin: "http://127.0.0.1:37515" }],
    ["a person's own doing", { "sec-fetch-site": "none" }],
    ["our own page in an old browser", { origin: "http://127.0.0.1:37515" }],
    ["our own page that says only its address", { referer: "http://127.0.0.1:37515/?search=x" }],
  ])("%s may", (_, headers) => {
    expect(judge("127.0.0.1", "POST", { host, ...headers })).toBeUndefined();
  });

  test.each<[name: string, headers: Record<string, string>]>([
    ["another site", { "sec-fetch-site": "cross-site", origin: "https://evil.example" }],
    ["another port of this machine", { "sec-fetch-site": "same-site", origin: "http://127.0.0.1:80" }],
    ["another site in an old browser", { origin: "https://evil.example" }],
    ["another port in an old browser", { origin: "http://127.0.0.1:80" }],
    ["another name of ours", { origin: "http://localhost:37515" }],
    ["a page without an origin", { origin: "null" }],
    ["a form of another site", { referer: "https://evil.example/" }],
    ["an empty origin", { origin: "" }],
    ["an origin that is none", { origin: "127.0.0.1:37515" }],
    ["a site that is unheard of", { "sec-fetch-site": "x", origin: "http://127.0.0.1:37515" }],
  ])("%s may not, though it may read", (_, headers) => {
    for (const method of ["POST", "PUT", "DELETE"]) {
      expect(judge("127.0.0.1", method, { host, ...headers })).toBe(OTHERS);
      expect(judge("0.0.0.0", method, { host, ...headers })).toBe(OTHERS);
    }
    for (const method of ["GET", "HEAD"]) {
      expect(judge("127.0.0.1", method, { host, ...headers })).toBeUndefined();
    }
  });

  test("behind a proxy that speaks TLS the origin has no port and another scheme", () => {
    const headers = { host: "nas.example", origin: "https://nas.example" };
    expect(judge("0.0.0.0", "POST", headers)).toBeUndefined();
    expect(judge("0.0.0.0", "POST", { ...headers, host: "nas.example:443" })).toBeUndefined();
    expect(judge("0.0.0.0", "POST", { ...headers, host: "nas.example:80" })).toBe(OTHERS);
  });
});

test.each([
  ["127.0.0.1", true],
  ["127.9.9.9", true],
  ["::1", true],
  ["[::1]", true],
  ["localhost", true],
  ["0.0.0.0", false],
  ["::", false],
  ["192.168.0.7", false],
  ["127.0.0.1.example", false],
  ["nas", false],
])("%s is loopback: %j", (hostname, is) => {
  expect(isLoopback(hostname)).toBe(is);
});
