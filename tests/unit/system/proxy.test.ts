/** Which proxy the variables name. What Bun does with them is tried in `e2e/proxy.test.ts`. */
import { describe, expect, test } from "bun:test";
import { parseReference } from "../../../src/oci/reference.ts";
import { networkFailure } from "../../../src/oci/retry.ts";
import { proxyChecks } from "../../../src/setup/check-proxy.ts";
import { proxyVariable, tellingOfProxies, withoutProxyForLoopback } from "../../../src/system/proxy.ts";

const P = "http://user:hunter2@proxy.lan:3128";
const HTTP = "http://registry.example:5000/v2/";
const HTTPS = "https://ghcr.io/v2/";

test.each<[string, Record<string, string>, string | undefined, string | undefined]>([
  [HTTP, {}, undefined, undefined],
  [HTTP, { http_proxy: P }, "http_proxy", "http_proxy"],
  [HTTP, { HTTP_PROXY: P }, "HTTP_PROXY", undefined],
  [HTTP, { http_proxy: "", HTTP_PROXY: P, ALL_PROXY: P }, "HTTP_PROXY", "ALL_PROXY"],
  [HTTP, { all_proxy: P, ALL_PROXY: P }, "all_proxy", "all_proxy"],
  [HTTP, { https_proxy: P }, undefined, undefined],
  [HTTPS, { http_proxy: P }, undefined, undefined],
  [HTTPS, { https_proxy: P, HTTPS_PROXY: P }, "https_proxy", "https_proxy"],
  [HTTPS, { HTTPS_PROXY: P }, "HTTPS_PROXY", "HTTPS_PROXY"],
])("%s with %o", (url, env, bun, curl) => {
  expect(proxyVariable(url, env, "bun")).toBe(bun as never);
  expect(proxyVariable(url, env, "curl")).toBe(curl as never);
});

describe("exceptions", () => {
  const passes = (url: string, list: string) => proxyVariable(url, { http_proxy: P, no_proxy: list }, "bun");
  test.each([
    ["http://a.example/", "a.example"],
    ["http://a.example/", "x, .example"],
    ["http://a.example/", "*.example"],
    ["http://a.example/", "A.EXAMPLE"],
    ["http://a.example:5000/", "a.example:5000"],
    ["http://a.example/", "*"],
    ["http://127.1.2.3/", "127.0.0.0/8"],
    ["http://[::1]:1/", "[::1]"],
    ["http://[::1]:1/", "::1"],
  ])("%s is excepted by %j", (url, list) => {
    expect(passes(url, list)).toBeUndefined();
  });

  test.each([
    ["http://a.example/", "b.example"],
    ["http://ba.example/", "a.example.org"],
    ["http://128.0.0.1/", "127.0.0.0/8"],
    ["http://a.example/", "127.0.0.0/8"],
    ["http://127.0.0.1/", "127.0.0.0/99"],
    ["http://a.example/", ""],
  ])("%s is not excepted by %j", (url, list) => {
    expect(passes(url, list)).toBe("http_proxy");
  });

  test("of capitals where there are none of small letters", () => {
    expect(proxyVariable(HTTP, { http_proxy: P, NO_PROXY: "registry.example" }, "curl")).toBeUndefined();
    expect(proxyVariable(HTTP, { http_proxy: P, no_proxy: "x", NO_PROXY: "registry.example" }, "curl")).toBe(
      "http_proxy",
    );
  });

  test("for this machine are added to the user's own", () => {
    const env = { http_proxy: P, no_proxy: "a.example", NO_PROXY: "b.example" };
    const own = { ...env, ...withoutProxyForLoopback(env) };
    const direct = [
      ...["http://a.example/", "http://b.example/", "http://127.0.0.1:1/", "http://127.9.9.9/"],
      ...["http://localhost:1/", "http://x.localhost/", "http://[::1]:1/", "http://0.0.0.0:1/"],
    ];
    for (const url of direct) expect([url, proxyVariable(url, own, "bun")]).toEqual([url, undefined]);
    expect(proxyVariable("http://localhost.example/", own, "bun")).toBe("http_proxy");
  });
});

describe("a failure says that a proxy stands in between, and holds nothing of its URL", () => {
  const failing = (code: string, message: string) => async () => {
    throw Object.assign(new Error(message), { code });
  };
  const tell = async (code: string, message: string) => {
    const send = tellingOfProxies({ http_proxy: P }, failing(code, message));
    const error = await send(HTTP, {}).catch((thrown) => thrown);
    return networkFailure("GET registry.example:5000/v2/", error);
  };
  test.each([
    ["ECONNREFUSED", "x", "nobody listens at the proxy (connection refused)", "refused"],
    ["ENOTFOUND", "getaddrinfo ENOTFOUND user:hunter2", "the proxy has no address (DNS)", "refused"],
    ["UnsupportedProxyProtocol", "x", "is of a kind that is not known", "refused"],
    ["ERR_PROXY_TUNNEL", "Proxy refused to open a tunnel: 407 P", "tunnel: 407 P", undefined],
  ])("%s", async (code, message, expected, few) => {
    const { failure, few: found } = await tell(code, message);
    expect(failure.message).toContain(expected);
    expect(failure.message).toContain("(the proxy is the one that http_proxy names)");
    expect(failure.message).not.toMatch(/hunter2|proxy\.lan/);
    expect(failure.hint).toContain("NO_PROXY");
    expect(found as never).toBe(few as never);
  });

  test("but not what may be of the server behind it", async () => {
    for (const code of ["ECONNRESET", "CERT_HAS_EXPIRED"]) {
      const send = tellingOfProxies({ http_proxy: P }, failing(code, "x"));
      expect(await send(HTTP, {}).catch((thrown) => thrown.code)).toBe(code);
    }
  });

  test("but not where none does", async () => {
    const send = tellingOfProxies({ https_proxy: P }, failing("ECONNREFUSED", "x"));
    const error = await send(HTTP, {}).catch((thrown) => thrown);
    expect(networkFailure("GET x", error).failure.message).toBe(
      "GET x: nobody listens there (connection refused)",
    );
  });
});

describe("doctor", () => {
  const check = async (env: Record<string, string>, url: string, reference = "ghcr.io/a/b") => {
    const [found, ...others] = proxyChecks({ url, env, reference: parseReference(reference) });
    expect(others).toEqual([]);
    return found?.run();
  };
  const LOCAL = "http://127.0.0.1:37515";

  test("names the variable by which Nix asks a proxy for what is on this machine", async () => {
    expect(await check({ http_proxy: P }, LOCAL)).toMatchObject({
      state: "wrong",
      text: expect.stringContaining("through the proxy that http_proxy names"),
      mend: expect.stringContaining("no_proxy=127.0.0.1"),
    });
    expect(await check({ http_proxy: P, no_proxy: "127.0.0.1" }, LOCAL)).toBeUndefined();
    // curl does not read it, and we do not go by it on this machine.
    expect(await check({ HTTP_PROXY: P }, LOCAL, "127.0.0.1:5000/x")).toBeUndefined();
  });

  test("tells by which proxy others are asked", async () => {
    const found = await check({ https_proxy: P, http_proxy: P }, "http://cache.lan:37515");
    expect(found).toEqual({
      state: "note",
      text: "Nix asks http://cache.lan:37515 through the proxy that http_proxy names; ghcr.io/a/b is read through the proxy that https_proxy names",
    });
  });
});
