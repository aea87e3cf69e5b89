/** The bench itself: each fault of the proxy really happens, as plain fetch and bare sockets see it. */
import { afterAll, beforeAll, beforeEach, expect, test } from "bun:test";
import { connect } from "node:net";
import { digestOf } from "../../src/oci/digest.ts";
import { EMPTY_CONFIG, EMPTY_CONFIG_BYTES, MEDIA_TYPE_MANIFEST } from "../../src/oci/manifest.ts";
import { ANSWERS, type AnswerName, type Fault, noFaults } from "../support/fault-plan.ts";
import { type FaultProxy, type FaultProxyOptions, startFaultProxy } from "../support/fault-proxy.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith } from "../support/needs.ts";
import { noise } from "../support/publish.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const NAME = "bench";
/** A connection of its own: on one that is reused, Bun's fetch repeats a request that was reset, also a PUT. */
const FRESH = { keepalive: false };
const BLOB = noise("blob", 100_000);
const DIGEST = digestOf(BLOB);

describeWith(["registry"], "the fault proxy", () => {
  let registry: TestRegistry;
  let proxy: FaultProxy;

  const start = async (options: Partial<FaultProxyOptions> = {}): Promise<FaultProxy> =>
    cleanup.add(await startFaultProxy({ registry: registry.host, ...options }));
  const url = (path: string, of = proxy) => `http://${of.host}/v2/${NAME}/${path}`;
  const once = (fault: Fault) => {
    proxy.plan = () => {
      proxy.plan = noFaults;
      return fault;
    };
  };
  const upload = async (bytes: Uint8Array<ArrayBuffer>, of = proxy, headers = {}): Promise<Response> => {
    const started = await fetch(url("blobs/uploads/", of), { method: "POST", headers });
    const location = `${started.headers.get("location")}&digest=${digestOf(bytes)}`;
    return fetch(location, { method: "PUT", body: bytes, headers });
  };
  const putManifest = (reference: string, fields: object = {}, of = proxy): Promise<Response> => {
    const manifest = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPE_MANIFEST,
      config: EMPTY_CONFIG,
      layers: [],
      ...fields,
    };
    const headers = { "content-type": MEDIA_TYPE_MANIFEST };
    return fetch(url(`manifests/${reference}`, of), {
      method: "PUT",
      body: JSON.stringify(manifest),
      headers,
    });
  };
  const last = () => proxy.log.at(-1);

  beforeAll(async () => {
    registry = cleanup.add(await startRegistry());
    proxy = await start();
    expect((await upload(BLOB)).status).toBe(201);
    expect((await upload(Uint8Array.from(EMPTY_CONFIG_BYTES))).status).toBe(201);
  });
  beforeEach(() => {
    proxy.plan = noFaults;
    proxy.log.length = 0;
  });

  test("without faults it is the registry, byte for byte, and logs what passes", async () => {
    const answer = await fetch(url(`blobs/${DIGEST}`));
    expect(digestOf(await answer.bytes())).toBe(DIGEST);
    expect(answer.headers.get("content-length")).toBe(String(BLOB.length));
    expect(last()).toMatchObject({ method: "GET", status: 200, sent: BLOB.length, received: 0, done: true });
    const range = await fetch(url(`blobs/${DIGEST}`), { headers: { range: "bytes=10-19" } });
    expect([range.status, await range.bytes()]).toEqual([206, BLOB.slice(10, 20)]);
    const head = await fetch(url(`blobs/${DIGEST}`), { method: "HEAD" });
    expect([head.status, head.headers.get("content-length")]).toEqual([200, String(BLOB.length)]);
    const chunked = await fetch(url("blobs/uploads/"), { method: "POST" });
    const location = `${chunked.headers.get("location")}&digest=${DIGEST}`;
    const body = new Blob([BLOB]).stream();
    expect((await fetch(location, { method: "PUT", body })).status).toBe(201);
    expect(last()).toMatchObject({ method: "PUT", received: BLOB.length });
  });

  test.each(Object.keys(ANSWERS) as AnswerName[])("answers %s", async (name) => {
    once({ kind: "answer", name });
    const answer = await fetch(url("tags/list"));
    expect(answer.status).toBe(ANSWERS[name].status);
    expect(await answer.text()).toContain(ANSWERS[name].message);
    expect(answer.headers.has("retry-after")).toBe(name === "rate-limit");
    expect(last()).toMatchObject({ status: ANSWERS[name].status, done: false });
    expect((await fetch(url(`blobs/${DIGEST}`))).status).toBe(200);
  });

  test("resets before an answer, and after it is done", async () => {
    for (const fault of [{ kind: "reset" }, { kind: "answer-lost" }] as const) {
      once(fault);
      await expect(fetch(url(`blobs/${DIGEST}`), FRESH)).rejects.toMatchObject({ code: "ECONNRESET" });
      expect(last()).toMatchObject({ fault, done: fault.kind === "answer-lost", sent: 0 });
    }
  });

  test("resets in the middle of an answer, by RST", async () => {
    once({ kind: "reset-answer", after: 1000 });
    const seen = await raw(proxy.host, `GET /v2/${NAME}/blobs/${DIGEST} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(seen.error).toBe("ECONNRESET");
    expect(last()).toMatchObject({ sent: 1000 });
    once({ kind: "reset-answer", after: 1000 });
    await expect((await fetch(url(`blobs/${DIGEST}`))).bytes()).rejects.toThrow();
  });

  test("resets in the middle of an upload, and the registry never hears of it", async () => {
    const bytes = noise("another", 50_000);
    const started = await fetch(url("blobs/uploads/"), { method: "POST" });
    once({ kind: "reset-upload", after: 20_000 });
    const location = `${started.headers.get("location")}&digest=${digestOf(bytes)}`;
    await expect(fetch(location, { ...FRESH, method: "PUT", body: bytes })).rejects.toThrow();
    expect(last()).toMatchObject({ received: 20_000, done: false, status: 0 });
    expect((await fetch(url(`blobs/${digestOf(bytes)}`), { method: "HEAD" })).status).toBe(404);
  });

  test("stalls in the middle, and before an answer", async () => {
    once({ kind: "stall", after: 1000 });
    const stop = new AbortController();
    const answer = await fetch(url(`blobs/${DIGEST}`), { signal: stop.signal });
    const reader = (answer.body as ReadableStream<Uint8Array>).getReader();
    for (let got = 0; got < 1000; ) got += (await reader.read()).value?.length ?? 0;
    const next = reader.read().then(
      () => "moved",
      () => "cut",
    );
    // A whole exchange passes, and the stalled one has not moved.
    await fetch(url("tags/list"));
    expect(await Promise.race([next, Promise.resolve("nothing")])).toBe("nothing");
    stop.abort();
    expect(await next).toBe("cut");

    once({ kind: "silence" });
    const silent = new AbortController();
    const waiting = fetch(url("tags/list"), { signal: silent.signal }).catch(() => "cut");
    await fetch(url(`blobs/${DIGEST}`), { method: "HEAD" });
    silent.abort();
    expect(await waiting).toBe("cut");
    expect(proxy.log.at(-2)).toMatchObject({ fault: { kind: "silence" }, done: false });
  });

  test("truncates: early by its length, and ending cleanly without one", async () => {
    once({ kind: "truncate", after: 1000, clean: false });
    const seen = await raw(proxy.host, `GET /v2/${NAME}/blobs/${DIGEST} HTTP/1.1\r\nHost: x\r\n\r\n`);
    expect(seen.error).toBeUndefined();
    expect(seen.text).toContain(`content-length: ${BLOB.length}`);
    expect(seen.text.split("\r\n\r\n").slice(1).join("\r\n\r\n").length).toBe(1000);
    once({ kind: "truncate", after: 1000, clean: true });
    const answer = await fetch(url(`blobs/${DIGEST}`));
    expect(answer.headers.get("content-length")).toBeNull();
    expect(await answer.bytes()).toEqual(BLOB.slice(0, 1000));
  });

  test("flips one bit", async () => {
    once({ kind: "flip", at: 5000 });
    const bytes = await (await fetch(url(`blobs/${DIGEST}`))).bytes();
    expect(bytes.length).toBe(BLOB.length);
    const differing = [...bytes.keys()].filter((at) => bytes[at] !== BLOB[at]);
    expect(differing).toEqual([5000]);
  });

  test("gives tokens, wants the scope, and ends them without notice", async () => {
    const user = { name: "somebody", password: "secret" };
    const strict = await start({ tokens: { user } });
    const asked = await fetch(url("tags/list", strict));
    expect(asked.status).toBe(401);
    const challenge = asked.headers.get("www-authenticate") ?? "";
    expect(challenge).toMatch(
      /^Bearer realm="http:\/\/[^"]+\/token",service="ghcr.test",scope="repository:user/,
    );
    const ask = async (scope: string, authorization?: string): Promise<Response> => {
      const query = new URLSearchParams({ service: "ghcr.test", scope: `repository:${NAME}:${scope}` });
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      return fetch(`http://${strict.host}/token?${query}`, { headers });
    };
    const basic = `Basic ${btoa("somebody:secret")}`;
    const tokenOf = async (answer: Response) => {
      expect(answer.status).toBe(200);
      return `Bearer ${((await answer.json()) as { token: string }).token}`;
    };
    expect((await ask("pull,push")).status).toBe(401);
    expect((await ask("pull", `Basic ${btoa("somebody:wrong")}`)).status).toBe(403);
    const pull = await tokenOf(await ask("pull"));
    const push = await tokenOf(await ask("pull,push", basic));
    const list = (authorization: string) =>
      fetch(url(`blobs/${DIGEST}`, strict), { headers: { authorization } });
    expect((await list(pull)).status).toBe(200);
    expect((await upload(BLOB, strict, { authorization: push })).status).toBe(201);
    const pushed = fetch(url("blobs/uploads/", strict), { method: "POST", headers: { authorization: pull } });
    expect((await pushed).status).toBe(403);
    strict.expireTokens();
    expect((await list(push)).status).toBe(401);

    const denied = await start({ tokens: { user, mayPush: false } });
    const query = new URLSearchParams({ service: "ghcr.test", scope: `repository:${NAME}:pull,push` });
    const headers = { authorization: basic };
    expect((await fetch(`http://${denied.host}/token?${query}`, { headers })).status).toBe(403);
  });

  test("redirects blobs to another origin, whose links end and refuse Authorization", async () => {
    const far = await start({ redirects: true });
    const link = async () => {
      const answer = await fetch(url(`blobs/${DIGEST}`, far), { redirect: "manual" });
      expect(answer.status).toBe(307);
      return answer.headers.get("location") as string;
    };
    const first = await link();
    expect(new URL(first).host).toBe(far.storageHost);
    expect(digestOf(await (await fetch(first)).bytes())).toBe(DIGEST);
    expect((await fetch(first, { headers: { range: "bytes=5-9" } })).status).toBe(206);
    expect((await fetch(first, { headers: { authorization: "Bearer x" } })).status).toBe(400);
    far.expireLinks();
    expect((await fetch(first)).status).toBe(403);
    expect((await fetch(await link())).status).toBe(200);
    const part = await fetch(url(`blobs/${DIGEST}`, far), { headers: { range: "bytes=7-9" } });
    expect(await part.bytes()).toEqual(BLOB.slice(7, 10));
    const absent = await fetch(url(`blobs/${digestOf("absent")}`, far), { redirect: "manual" });
    expect(absent.status).toBe(404);
    expect((await fetch(url(`blobs/${DIGEST}`, far), { method: "HEAD" })).status).toBe(200);
  });

  test("shows tags and manifests late", async () => {
    const late = await start({ lateTags: 2, lateManifests: 1 });
    expect((await putManifest("late", {}, late)).status).toBe(201);
    const listed = async () => {
      const { tags } = (await (await fetch(url("tags/list", late))).json()) as { tags: string[] };
      return tags.includes("late");
    };
    expect([await listed(), await listed(), await listed()]).toEqual([false, false, true]);
    const headers = { accept: MEDIA_TYPE_MANIFEST };
    const head = async () => (await fetch(url("manifests/late", late), { method: "HEAD", headers })).status;
    expect([await head(), await head()]).toEqual([404, 200]);
  });

  test("refuses deletion, artifact types, and accepts manifests that name nothing", async () => {
    const odd = await start({ refusesDeletion: true, refusesArtifactTypes: 415 });
    const gone = fetch(url(`manifests/${digestOf("x")}`, odd), { method: "DELETE" });
    expect((await gone).status).toBe(405);
    expect((await putManifest("artifact", { artifactType: "application/vnd.test" }, odd)).status).toBe(415);
    const lax = await start({ acceptsMissingBlobs: true });
    const layers = [{ mediaType: "application/octet-stream", digest: digestOf("nowhere"), size: 7 }];
    expect((await putManifest("lax", { layers })).status).toBe(400);
    expect((await putManifest("lax", { layers }, lax)).status).toBe(201);
  });

  test("waits before and after a request for whoever watches", async () => {
    const order: string[] = [];
    proxy.before = async ({ done }) => {
      order.push(`before ${done}`);
      return undefined;
    };
    proxy.after = async ({ done, status }) => void order.push(`after ${done} ${status}`);
    await fetch(url(`blobs/${DIGEST}`));
    expect(order).toEqual(["before false", "after true 200"]);
    proxy.before = () => "drop";
    await expect(fetch(url(`blobs/${DIGEST}`), FRESH)).rejects.toThrow();
    expect(last()).toMatchObject({ status: 0, done: false });
    proxy.before = () => undefined;
    proxy.after = () => {};
  });

  test("a stopped registry is a connection that breaks", async () => {
    await registry.stop();
    await expect(fetch(url("tags/list"), FRESH)).rejects.toThrow();
    await registry.start();
    expect((await fetch(url("tags/list"))).status).toBe(200);
  });
});

/** What a bare socket receives until the other side ends it, and how that was. */
async function raw(host: string, request: string): Promise<{ text: string; error: string | undefined }> {
  const [hostname = "", port] = host.split(":");
  return new Promise((resolve) => {
    let [text, error] = ["", undefined as string | undefined];
    const socket = connect(Number(port), hostname, () => socket.write(request));
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
    });
    socket.on("error", (cause: NodeJS.ErrnoException) => {
      error = cause.code;
    });
    socket.on("end", () => socket.end());
    socket.on("close", () => resolve({ text, error }));
  });
}
