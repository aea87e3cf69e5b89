/** Which paths upstreams have, and whose "no" is one: real requests to doubles on loopback that answer anything. */
import { afterEach, describe, expect, test } from "bun:test";
import { realHost } from "../../../src/context.ts";
import { DIRECT_WEB } from "../../../src/network/web.ts";
import { createUpstreams } from "../../../src/serve/upstreams.ts";
import { openUpstream } from "../../../src/upstream/client.ts";
import { UpstreamQuestions } from "../../../src/upstream/questions.ts";
import { storeHash } from "../../support/protocol.ts";
import { ANY_UPSTREAMS } from "../../support/upstreams.ts";

const servers: Bun.Server<undefined>[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) server.stop(true);
});

const INFO = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
const PRESENT = storeHash("present");
const HASHES = Array.from({ length: 40 }, (_, i) => storeHash(`absent-${i}`));
const narinfo = (hash: string) =>
  `StorePath: /nix/store/${hash}-x\nURL: nar/x.nar\nCompression: none\n` +
  `NarHash: sha256:${"0".repeat(52)}\nNarSize: 1\nReferences: \n`;

interface Answers {
  /** To nix-cache-info. */
  readonly info: () => Response;
  /** To the narinfos of paths that it has not. */
  readonly absent: () => Response;
}

/** An upstream that has one path, if it lets anybody see it. */
function start({ info, absent }: Answers) {
  const requests: string[] = [];
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const { pathname } = new URL(request.url);
      requests.push(pathname);
      if (pathname === "/nix-cache-info") return info();
      const refused = absent();
      return pathname === `/${PRESENT}.narinfo` && refused.status !== 401
        ? new Response(narinfo(PRESENT))
        : refused;
    },
  });
  servers.push(server);
  const url = `http://127.0.0.1:${server.port}`;
  return { url, requests, count: (path: string) => requests.filter((other) => other === path).length };
}

const open = (url: string) =>
  openUpstream(url, { web: DIRECT_WEB, timeoutMs: 10_000, stallMs: 10_000, userAgent: "test" });

const status = (code: number) => () => new Response("no", { status: code });
const text = (body: string, init?: ResponseInit) => () => new Response(body, init);
const LOGIN = text("<!doctype html><title>Sign in: please</title>", {
  headers: { "content-type": "text/html" },
});
const redirect = (location: string) => () => new Response(null, { status: 302, headers: { location } });

function questions(url: string) {
  const warnings: string[] = [];
  const asked = new UpstreamQuestions([open(url)], {
    warn: (message) => warnings.push(message),
    consequence: "so nothing is left out for it",
  });
  return { asked, warnings };
}

describe("a cache that can be read", () => {
  test.each([401, 403, 404, 407, 410])("has not what it answers %i for", async (code) => {
    const upstream = start({ info: text(INFO), absent: status(code) });
    const { asked, warnings } = questions(upstream.url);
    for (const hash of HASHES) expect(await asked.ask(hash)).toBe("absent");
    if (code !== 401) expect(await asked.ask(PRESENT)).toBe("has");
    expect(warnings).toEqual([]);
    // Asked for by the client where it must know what 403 means, and by the run for its proof.
    expect(upstream.count("/nix-cache-info")).toBeLessThanOrEqual(2);
  });

  test("whose 403 is of S3 costs one question more for all of them at once", async () => {
    const upstream = start({ info: text(INFO), absent: status(403) });
    const client = open(upstream.url);
    const answers = await Promise.all(HASHES.map((hash) => client.narinfo(hash)));
    expect(new Set(answers)).toEqual(new Set([undefined]));
    await Promise.all(HASHES.map((hash) => client.narinfo(hash)));
    expect(upstream.count("/nix-cache-info")).toBe(1);
  });
});

describe("a cache that cannot be read says nothing of any path", () => {
  const portal = redirect("/portal");
  test.each<[string, Answers, string]>([
    ["401 to everything", { info: status(401), absent: status(401) }, "/nix-cache-info: got status 401"],
    ["403 to everything", { info: status(403), absent: status(403) }, "got status 403"],
    ["407 to everything", { info: status(407), absent: status(407) }, "got status 407"],
    ["500 to everything", { info: status(500), absent: status(500) }, "got status 500"],
    ["404 to everything", { info: status(404), absent: status(404) }, "/nix-cache-info: got status 404"],
    ["403 to its nix-cache-info alone", { info: status(403), absent: status(404) }, "got status 403"],
    ["500 to its nix-cache-info alone", { info: status(500), absent: status(404) }, "got status 500"],
    ["403, and a page to sign in at", { info: LOGIN, absent: status(403) }, "got status 403"],
    ["404, and a page to sign in at", { info: LOGIN, absent: status(404) }, "expected StoreDir: /nix/store"],
    ["a page to sign in at for everything", { info: LOGIN, absent: LOGIN }, "got no narinfo"],
    ["a captive portal", { info: portal, absent: portal }, "cannot be asked"],
    [
      "another store",
      { info: text("StoreDir: /gnu/store\nPriority: 40\n"), absent: status(404) },
      "expected StoreDir: /nix/store",
    ],
    ["an empty nix-cache-info", { info: text(""), absent: status(404) }, "expected StoreDir: /nix/store"],
  ])("%s", async (_, answers, reason) => {
    const upstream = start(answers);
    const { asked, warnings } = questions(upstream.url);
    const found = [];
    for (const hash of HASHES) found.push(await asked.ask(hash));
    expect(new Set(found)).toEqual(new Set(["unknown"]));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toStartWith(
      `upstream ${upstream.url} cannot be asked, so nothing is left out for it: `,
    );
    expect(warnings[0]).toContain(reason);
    // Nobody waits forty times for what does not answer.
    expect(upstream.count("/nix-cache-info")).toBeLessThanOrEqual(4);
  });

  test("but what it gives counts, also without a nix-cache-info", async () => {
    const upstream = start({ info: status(404), absent: status(404) });
    const { asked, warnings } = questions(upstream.url);
    for (const hash of HASHES) expect(await asked.ask(hash)).toBe("unknown");
    expect(await asked.ask(PRESENT)).toBe("has");
    expect(warnings).toHaveLength(1);
  });
});

test("one that has a path counts, whatever others say", async () => {
  const refusing = start({ info: status(403), absent: status(403) });
  const having = start({ info: text(INFO), absent: status(404) });
  const warnings: string[] = [];
  const options = { warn: (message: string) => warnings.push(message), consequence: "so" };
  const asked = new UpstreamQuestions([open(refusing.url), open(having.url)], options);
  expect(await asked.ask(PRESENT)).toBe("has");
  expect(await asked.ask(storeHash("other"))).toBe("unknown");
  expect(warnings).toHaveLength(1);
});

describe("serve", () => {
  const way = { method: "GET", headers: new Headers(), signal: new AbortController().signal };
  const serve = (url: string) => {
    const errors: string[] = [];
    const host = { ...realHost, now: () => 1_000_000 };
    const upstreams = createUpstreams([open(url)], {
      ...ANY_UPSTREAMS,
      host,
      onError: (message) => errors.push(message),
    });
    return { upstreams, errors };
  };

  test.each([401, 403, 407])("leaves a cache alone that answers %i to everything", async (code) => {
    const upstream = start({ info: status(code), absent: status(code) });
    const { upstreams, errors } = serve(upstream.url);
    for (const hash of HASHES) expect(await upstreams.narinfo(hash, way)).toBeUndefined();
    while (upstreams.status()[0]?.state !== "down") await Bun.sleep(1);
    const reached = upstream.requests.length;
    expect(reached).toBeLessThanOrEqual(4);
    for (const hash of HASHES) expect(await upstreams.narinfo(`${hash}`, way)).toBeUndefined();
    expect(await upstreams.nar("nar/x.nar", way)).toBe("failed");
    expect(upstream.requests.length).toBe(reached);
    expect(errors.join("\n")).toContain(`${upstream.url}/nix-cache-info: got status ${code}`);
    upstreams.close();
  });

  test("asks one whose 403 means absent as any other", async () => {
    const upstream = start({ info: text(INFO), absent: status(403) });
    const { upstreams, errors } = serve(upstream.url);
    for (const hash of HASHES) expect(await upstreams.narinfo(hash, way)).toBeUndefined();
    expect(await upstreams.narinfo(PRESENT, way)).toBe(narinfo(PRESENT));
    expect(upstreams.status()[0]).toMatchObject({ state: "up", failures: 0, misses: HASHES.length, hits: 1 });
    expect(errors).toEqual([]);
    // Its priority, and what 403 means.
    expect(upstream.count("/nix-cache-info")).toBe(2);
    upstreams.close();
  });

  test("asks one without a nix-cache-info as any other", async () => {
    const upstream = start({ info: status(404), absent: status(404) });
    const { upstreams } = serve(upstream.url);
    for (const hash of HASHES) expect(await upstreams.narinfo(hash, way)).toBeUndefined();
    expect(await upstreams.narinfo(PRESENT, way)).toBe(narinfo(PRESENT));
    expect(upstreams.status()[0]).toMatchObject({ state: "up", failures: 0, priority: null });
    upstreams.close();
  });
});
