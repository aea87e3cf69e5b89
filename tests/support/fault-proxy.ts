/**
 * The fault proxy: the real docker-registry behind a hostile one. Requests are passed on unless a plan says what
 * goes wrong (`fault-plan.ts`); tokens, links to storage, late tags and refusals follow GHCR's ways. Everything is
 * logged. It listens on two ports of this machine, since storage is another origin.
 *
 *     const proxy = await startFaultProxy({ registry: registry.host, plan: randomPlan({ seed, probability: 0.2 }) });
 *     … nixcache publish --cache ${proxy.host}/cache …
 *     proxy.log.filter(({ fault }) => fault !== undefined)
 */
import { type Fault, type FaultPlan, noFaults } from "./fault-plan.ts";
import { LateTags } from "./late-tags.ts";
import { emptyAnswer, type OutgoingAnswer, refusal, sendAnswer, sendFaulty } from "./proxy-answer.ts";
import { type TokenOptions, Tokens } from "./proxy-tokens.ts";
import { startWire, type WireAnswer, type WireRequest } from "./wire.ts";

export interface FaultProxyOptions {
  /** `127.0.0.1:PORT` of the real one. */
  readonly registry: string;
  /** What goes wrong. Default: nothing. May be replaced while it runs. */
  readonly plan?: FaultPlan;
  /** Asks for tokens. Default: everybody may do everything. */
  readonly tokens?: TokenOptions;
  /** Blobs are fetched from another origin, by signed links. Default: no. */
  readonly redirects?: boolean;
  /** Blobs are fetched from this host instead: the address of one, by its digest. */
  readonly storage?: (digest: string) => string;
  /** New tags are missing from the next so many lists. Default: 0. */
  readonly lateTags?: number;
  /** New tags are 404 for the next so many requests by their exact name. Default: 0. */
  readonly lateManifests?: number;
  /** 405 to every DELETE, as at GHCR. Default: passed on. */
  readonly refusesDeletion?: boolean;
  /** This status for manifests with an artifactType or an empty config. Default: passed on. */
  readonly refusesArtifactTypes?: number;
  /** Manifests may name missing blobs, which the real one refuses: it answers 201 and forgets them. */
  readonly acceptsMissingBlobs?: boolean;
}

/** One request, in the order in which they came. */
export interface LoggedRequest {
  /** From 1. */
  readonly number: number;
  readonly origin: "registry" | "storage" | "token";
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly range: string | null;
  readonly authorization: string | null;
  /** The answer's; 0 where there was none. */
  status: number;
  fault: Fault | undefined;
  /** Bytes of the body that the client has sent. */
  received: number;
  /** Bytes of the answer's body that were handed to the client. */
  sent: number;
  /** Whether the registry has done it: it answered with 2xx or 3xx. */
  done: boolean;
  /** Of a manifest that was put. */
  body?: Uint8Array;
}

type MaybePromise<T> = Promise<T> | T;

export interface FaultProxy {
  /** `127.0.0.1:PORT`, in the place of the registry's. */
  readonly host: string;
  /** The other origin. */
  readonly storageHost: string;
  readonly log: LoggedRequest[];
  plan: FaultPlan;
  /** Called when a request has come whole, before it is passed on. It waits for the result; "drop" drops it. */
  before: (request: LoggedRequest) => MaybePromise<"drop" | undefined>;
  /** Called when the registry has answered, before the client hears of it. It waits for the result. */
  after: (request: LoggedRequest) => MaybePromise<void>;
  /** No token that was given out so far is any good from now on. */
  expireTokens(): void;
  expireLinks(): void;
  /** Logged requests of a method whose path matches. */
  count(method: string, path: RegExp): number;
  close(): Promise<void>;
}

const HOP_HEADERS = ["connection", "keep-alive", "transfer-encoding", "content-length", "date"];
const BLOB = /^\/v2\/(.+)\/blobs\/(sha256:[0-9a-f]{64})$/;
const MANIFEST = /^\/v2\/(.+)\/manifests\/([^/]+)$/;

export async function startFaultProxy(options: FaultProxyOptions): Promise<FaultProxy> {
  const log: LoggedRequest[] = [];
  const links = new Map<string, string>();
  const tokens = options.tokens === undefined ? undefined : new Tokens(options.tokens);
  const late = new LateTags(options.lateTags ?? 0, options.lateManifests ?? 0);

  /** Logs the request, lets the plan have its way, and otherwise answers with what `act` gives. */
  const exchange =
    (origin: "registry" | "storage", act: Act) =>
    async (wire: WireRequest, answer: WireAnswer): Promise<void> => {
      const request = seen(log, origin, wire);
      const planned = {
        ...request,
        path: subject(request),
        size: Number(wire.headers.get("content-length") ?? 0),
      };
      const fault = proxy.plan(planned);
      request.fault = fault;
      if (fault?.kind === "reset-upload") {
        while (request.received < fault.after) {
          const piece = await wire.read(fault.after - request.received);
          if (piece === undefined) break;
          request.received += piece.length;
        }
        return answer.reset();
      }
      const body = await wire.body();
      request.received = body.length;
      if ((await proxy.before(request)) === "drop") return answer.reset();
      const outcome = interrupted(request, fault) ?? (await act(request, asked(wire.headers, fault), body));
      if (outcome === "reset") return answer.reset();
      if (outcome === "silence") return answer.closed;
      request.status = outcome.status;
      await proxy.after(request);
      if (fault?.kind === "answer-lost") return answer.reset();
      if (fault === undefined) await sendAnswer(request, outcome, answer);
      else await sendFaulty(request, outcome, answer, fault);
    };

  /** What a fault makes of a request that the registry never hears of. */
  const interrupted = (
    request: LoggedRequest,
    fault: Fault | undefined,
  ): OutgoingAnswer | "reset" | "silence" | undefined => {
    if (fault?.kind === "reset") return "reset";
    if (fault?.kind === "silence") return "silence";
    if (fault?.kind === "answer") return refusal(fault.name);
    if (fault?.kind === "token-expired") tokens?.expire(request.authorization);
    if (fault?.kind === "link-expired") links.delete(new URLSearchParams(request.query).get("sig") ?? "");
    return undefined;
  };

  const pass = async (
    request: LoggedRequest,
    target: string,
    headers: Headers,
    body: Buffer,
  ): Promise<OutgoingAnswer | "reset"> => {
    const sent = new Headers(headers);
    for (const name of [...HOP_HEADERS, "host", "expect"]) sent.delete(name);
    // Tokens of the proxy's own are nothing to the real one, nor are credentials to storage.
    if (tokens !== undefined || request.origin === "storage") sent.delete("authorization");
    let response: Response;
    try {
      response = await fetch(`http://${options.registry}${target}`, {
        method: request.method,
        headers: sent,
        ...(body.length > 0 || request.method === "PUT" ? { body } : {}),
        redirect: "manual",
        decompress: false,
      } as RequestInit);
    } catch {
      return "reset";
    }
    request.done = response.status < 400;
    const answered = new Headers(response.headers);
    // The real one builds addresses of its own.
    for (const name of ["location", "www-authenticate"]) {
      const value = answered.get(name);
      if (value !== null)
        answered.set(name, value.replace(`http://${options.registry}`, `http://${registry.host}`));
    }
    return { status: response.status, headers: answered, body: response.body };
  };

  const onRegistry: Act = async (request, headers, body) => {
    const { method, path, query } = request;
    if (tokens !== undefined) {
      if (path === "/token") return tokens.give(request);
      const refused = tokens.check(request, `http://${registry.host}`);
      if (refused !== undefined) return refused;
    }
    if (method === "DELETE" && options.refusesDeletion) return refusal("unsupported");
    const blob = BLOB.exec(path);
    if (options.storage !== undefined && method === "GET" && blob !== null) {
      return emptyAnswer(307, { location: options.storage(blob[2] ?? "") });
    }
    if (options.redirects && method === "GET" && blob !== null) {
      // A blob that is not there is the registry's to say.
      const found = await pass({ ...request, method: "HEAD" }, path, new Headers(), Buffer.alloc(0));
      if (found === "reset" || found.status !== 200) return pass(request, path, headers, body);
      const signature = crypto.randomUUID();
      links.set(signature, path);
      const location = `http://${storage.host}/${blob[2]}?sig=${signature}`;
      return emptyAnswer(307, { location });
    }
    const manifest = MANIFEST.exec(path);
    if (manifest === null) {
      const answer = await pass(request, path + query, headers, body);
      return path.endsWith("/tags/list") && answer !== "reset" ? late.list(answer) : answer;
    }
    const [, , reference = ""] = manifest;
    if (method !== "PUT")
      return late.hides(reference) ? refusal("manifest-unknown") : pass(request, path, headers, body);
    request.body = body;
    if (options.refusesArtifactTypes !== undefined && isArtifact(body)) {
      return { ...refusal("manifest-invalid"), status: options.refusesArtifactTypes };
    }
    const answer = await pass(request, path, headers, body);
    if (answer !== "reset" && answer.status === 201) late.add(reference);
    if (answer !== "reset" && answer.status >= 400 && options.acceptsMissingBlobs)
      return emptyAnswer(201, {});
    return answer;
  };

  const onStorage: Act = async (request, headers) => {
    // As S3 and Azure do: two ways to sign in at once are an error.
    if (request.authorization !== null) return { ...refusal("denied"), status: 400 };
    const target = links.get(new URLSearchParams(request.query).get("sig") ?? "");
    if (target === undefined) return refusal("denied");
    return pass(request, target, headers, Buffer.alloc(0));
  };

  const registry = await startWire(exchange("registry", onRegistry));
  const storage = await startWire(exchange("storage", onStorage));
  const proxy: FaultProxy = {
    host: registry.host,
    storageHost: storage.host,
    log,
    plan: options.plan ?? noFaults,
    before: () => undefined,
    after: () => {},
    expireTokens: () => tokens?.expireAll(),
    expireLinks: () => links.clear(),
    count: (method, path) =>
      log.filter((request) => request.method === method && path.test(request.path)).length,
    close: async () => {
      await Promise.all([registry.close(), storage.close()]);
    },
  };
  return proxy;
}

type Act = (
  request: LoggedRequest,
  headers: Headers,
  body: Buffer,
) => Promise<OutgoingAnswer | "reset"> | OutgoingAnswer;

function seen(log: LoggedRequest[], origin: "registry" | "storage", wire: WireRequest): LoggedRequest {
  const { pathname: path, search: query } = new URL(wire.target, "http://proxy");
  const request: LoggedRequest = {
    number: log.length + 1,
    origin: path === "/token" ? "token" : origin,
    method: wire.method,
    path,
    query,
    range: wire.headers.get("range"),
    authorization: wire.headers.get("authorization"),
    status: 0,
    fault: undefined,
    received: 0,
    sent: 0,
    done: false,
  };
  log.push(request);
  return request;
}

/** What the registry is asked for in the place of what was asked. */
function asked(headers: Headers, fault: Fault | undefined): Headers {
  const range = headers.get("range");
  if (range === null || (fault?.kind !== "range-ignored" && fault?.kind !== "range-shifted")) return headers;
  const changed = new Headers(headers);
  if (fault.kind === "range-ignored") changed.delete("range");
  else
    changed.set(
      "range",
      range.replace(/\d+/g, (place) => String(Number(place) + fault.by)),
    );
  return changed;
}

/** What a request is about, the same for every try of it. */
function subject({ path, query }: LoggedRequest): string {
  const digest = new URLSearchParams(query).get("digest");
  return digest === null ? path : path.replace(/[^/]*$/, digest);
}

function isArtifact(body: Uint8Array): boolean {
  const manifest = JSON.parse(new TextDecoder().decode(body));
  return manifest.artifactType !== undefined || /empty/.test(manifest.config?.mediaType ?? "");
}
