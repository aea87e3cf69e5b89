/** What a registry lets us do, asked of one that answers as the tests say. */
import { expect, test } from "bun:test";
import { openRegistry } from "../../../src/oci/registry.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import { askRegistry } from "../../../src/oci/rights.ts";
import { recordedAnswer } from "../../support/registry-ways.ts";
import { testNetwork } from "./network.ts";

type Answers = (method: string, path: string) => Response | undefined;

/** A registry at an address that nothing is sent to. */
function ask(answers: Answers, signedIn = true) {
  const sent: string[] = [];
  const network = {
    ...testNetwork(),
    fetch: async (url: string, init: RequestInit) => {
      const { pathname, search } = new URL(url);
      sent.push(`${init.method ?? "GET"} ${pathname}${search}`);
      return answers(init.method ?? "GET", pathname) ?? new Response(null, { status: 500 });
    },
  };
  const registry = askRegistry(
    { kind: "registry", scheme: "https", host: "registry.example", repository: "me/cache" },
    {
      ...{ host: network, network, policy: PATIENT },
      credentials: async () => (signedIn ? { kind: "password", username: "me", password: "p" } : undefined),
    },
  );
  return { registry, sent, network };
}

const started = (location: string) => new Response(null, { status: 202, headers: { location } });

test.each<[string, Response | undefined, boolean | string]>([
  ["a cache", new Response('{"tags":[]}'), true],
  ["none yet", new Response('{"errors":[{"code":"NAME_UNKNOWN"}]}', { status: 404 }), false],
  ["a registry that fails, once", undefined, "got 500"],
  ["what is no registry", new Response("", { status: 418 }), "got 418"],
])("reading %s", async (_, answer, expected) => {
  const { registry, sent } = ask(() => answer);
  if (typeof expected === "string") await expect(registry.canPull()).rejects.toThrow(expected);
  else expect(await registry.canPull()).toBe(expected);
  expect(sent).toEqual(["GET /v2/me/cache/tags/list?n=1"]);
});

test.each([
  ["that can be cancelled", 204],
  ["that cannot", 405],
  ["whose cancelling fails", 500],
])("an upload %s proves the right to write", async (_, status) => {
  const { registry, sent } = ask((method) =>
    method === "POST" ? started("/v2/me/cache/blobs/uploads/1?state=x") : new Response(null, { status }),
  );
  expect(await registry.canPush()).toBe(true);
  expect(sent).toEqual(["POST /v2/me/cache/blobs/uploads/", "DELETE /v2/me/cache/blobs/uploads/1?state=x"]);
});

test("without credentials nothing is begun", async () => {
  const { registry, sent } = ask(() => undefined, false);
  expect(await registry.canPush()).toBeUndefined();
  expect(sent).toEqual([]);
});

test.each<[string, () => Response, string]>([
  ["a refusal", () => new Response("", { status: 403 }), "not allowed to write to it"],
  ["no session", () => new Response(null, { status: 202 }), "got 202"],
])("%s proves nothing", async (_, answer, message) => {
  await expect(ask(answer).registry.canPush()).rejects.toThrow(message);
});

test("the clock is told by any answer, and by none that has no date", async () => {
  const { registry, network } = ask(() => {
    const date = new Date(network.now() + 3_600_000).toUTCString();
    return new Response("", { status: 401, headers: { date } });
  });
  expect(Math.round(((await registry.clockAheadMs()) ?? 0) / 60_000)).toBe(60);
  expect(await ask(() => new Response("")).registry.clockAheadMs()).toBeUndefined();
});

/** The store's own question, before hours of work. */
function storeOf(answers: Answers) {
  const sent: string[] = [];
  const network = {
    ...testNetwork(),
    fetch: async (url: string, init: RequestInit) => {
      sent.push(`${init.method ?? "GET"} ${new URL(url).pathname}`);
      return answers(init.method ?? "GET", new URL(url).pathname) ?? new Response(null, { status: 500 });
    },
  };
  const store = openRegistry(
    { kind: "registry", scheme: "https", host: "registry.example", repository: "me/cache" },
    { host: network, network, policy: PATIENT },
  );
  return { store, sent };
}

const POST = "POST /v2/me/cache/blobs/uploads/";
const refusal = (status: number, code: string) => () =>
  new Response(JSON.stringify({ errors: [{ code, message: "" }] }), {
    status,
    headers: { "www-authenticate": 'Basic realm="a"' },
  });

test("that something can be written is asked by an upload that is given up, and no more", async () => {
  const { store, sent } = storeOf((method) =>
    method === "POST" ? started("https://registry.example/session") : new Response(null, { status: 204 }),
  );
  await store.checkWrite?.();
  expect(sent).toEqual([POST, "DELETE /session"]);
});

test.each([
  ["docker-registry", "The registry is read-only"],
  ["distribution", "The registry is read-only"],
  ["olareg", "The registry is read-only"],
  // Whoever signs in may be allowed to.
  ["zot", "docker login"],
])("of %s that is read-only it is told by the answer that was recorded", async (name, hint) => {
  const { store } = storeOf(() => recordedAnswer(name, "writing where that is off"));
  const failure = await store.checkWrite?.().catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: "denied", hint: expect.stringContaining(hint) });
});

test.each<[string, () => Response, string, string]>([
  ["no right", refusal(403, "DENIED"), "denied", "not allowed to write to it"],
  ["credentials that have ended", refusal(401, "UNAUTHORIZED"), "denied", "not allowed to write to it"],
  [
    "a registry that is read-only",
    refusal(405, "UNSUPPORTED"),
    "denied",
    "takes no uploads (it answered 405)",
  ],
  [
    "a registry that has no uploads",
    refusal(501, "UNSUPPORTED"),
    "denied",
    "takes no uploads (it answered 501)",
  ],
  ["no such project", refusal(404, "NAME_UNKNOWN"), "denied", "got 404 (NAME_UNKNOWN)"],
  ["a registry that is down", refusal(503, "UNAVAILABLE"), "unreachable", "got 503"],
  ["a rate limit", refusal(429, "TOOMANYREQUESTS"), "unreachable", "got 429"],
  ["what is no registry", () => new Response("", { status: 418 }), "protocol", "got 418"],
])("of %s it is told, after two tries at most", async (_, answer, code, message) => {
  const { store, sent } = storeOf(answer);
  const failure = await store.checkWrite?.().catch((error: unknown) => error);
  expect(failure).toMatchObject({ code, message: expect.stringContaining(message) });
  expect(sent.filter((request) => request !== "GET /v2/").length).toBeLessThanOrEqual(2);
});
