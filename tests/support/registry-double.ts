/**
 * A double of a registry, not a real one: it behaves as GHCR is documented and reported to, so that tests reach
 * what no local registry does. Opaque tokens that end without notice, a token endpoint that refuses, blobs on
 * another origin behind signed links, rate limits, pages of tags, faults at will. In memory, on loopback.
 */
import { createHash } from "node:crypto";

export interface SeenRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly origin: "registry" | "storage";
  readonly headers: Headers;
}

/** Answers instead of the double, or lets it go on. */
export type Fault = (
  request: SeenRequest,
  raw: Request,
) => Response | undefined | Promise<Response | undefined>;

export interface DoubleOptions {
  /** `public`: anybody reads. `private`: with the right password. `missing`: as private, but not there yet. */
  readonly visibility?: "public" | "private" | "missing";
  readonly username?: string;
  readonly password?: string;
  /** Seconds in `expires_in`; GHCR states none. */
  readonly expiresIn?: number;
  readonly tagsPerPage?: number;
  /** Refuses manifests with an artifactType or a config other than an image's, with this status. */
  readonly refusesArtifactTypes?: number;
  /** What it answers to a manifest that names a missing blob. Default: it takes it. */
  readonly atMissingBlob?: (digest: string) => Response;
  /** Keeps tags in lower case, and finds them in any. */
  readonly lowersTags?: boolean;
  /** Blobs come whole from the registry itself, whatever was asked for. */
  readonly ignoresRange?: boolean;
  /** Deletes manifests. */
  readonly deletes?: boolean;
  /** What its Date header says, in milliseconds since 1970 or as it stands. Default: today. */
  readonly date?: () => number | string;
}

export interface RegistryDouble {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly storageHost: string;
  readonly requests: SeenRequest[];
  readonly blobs: Map<string, Uint8Array>;
  readonly manifests: Map<string, { mediaType: string; bytes: Uint8Array }>;
  readonly tags: Map<string, string>;
  /** Called for every request, in this order, until one answers. */
  readonly faults: Fault[];
  /** No token that was given out so far is any good from now on. */
  expireTokens(): void;
  expireLinks(): void;
  count(method: string, path: RegExp): number;
  close(): void;
}

export async function withDouble<T>(
  body: (double: RegistryDouble) => Promise<T>,
  options: DoubleOptions = {},
): Promise<T> {
  const double = startDouble(options);
  try {
    return await body(double);
  } finally {
    double.close();
  }
}

export const DOUBLE_REPOSITORY = "owner/repo/nix-cache";

export function startDouble(options: DoubleOptions = {}): RegistryDouble {
  const {
    visibility = "public",
    username = "somebody",
    password = "ghp_secret",
    tagsPerPage = 1000,
  } = options;
  const requests: SeenRequest[] = [];
  const faults: Fault[] = [];
  const blobs = new Map<string, Uint8Array>();
  const manifests = new Map<string, { mediaType: string; bytes: Uint8Array }>();
  const tags = new Map<string, string>();
  const sessions = new Set<string>();
  /** Token → the actions it allows. */
  let tokens = new Map<string, readonly string[]>();
  let links = new Set<string>();
  let serial = 0;

  const see = async (raw: Request, origin: "registry" | "storage"): Promise<Response | SeenRequest> => {
    const url = new URL(raw.url);
    const request = {
      method: raw.method,
      path: url.pathname + url.search,
      origin,
      headers: new Headers(raw.headers),
    };
    requests.push(request);
    for (const fault of faults) {
      const answer = await fault(request, raw);
      if (answer !== undefined) return answer;
    }
    return request;
  };

  const storage = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    async fetch(raw) {
      const request = await see(raw, "storage");
      if (request instanceof Response) return request;
      // As S3 and Azure do: two ways to sign in at once are an error.
      if (request.headers.has("authorization")) return new Response("InvalidArgument", { status: 400 });
      const url = new URL(raw.url);
      if (!links.has(url.searchParams.get("sig") ?? ""))
        return new Response("AuthenticationFailed", { status: 403 });
      return ranged(blobs.get(url.pathname.slice(1)), request.headers.get("range"));
    },
  });

  const dated = (answer: Response): Response => {
    const date = options.date?.();
    if (date !== undefined && !answer.headers.has("date"))
      answer.headers.set("date", typeof date === "string" ? date : new Date(date).toUTCString());
    return answer;
  };

  const registry = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (raw) => dated(await answer(raw)),
  });

  const answer = async (raw: Request): Promise<Response> => {
    const request = await see(raw, "registry");
    if (request instanceof Response) return request;
    const url = new URL(raw.url);
    if (url.pathname === "/token") return token(url, request.headers.get("authorization"));
    const prefix = `/v2/${DOUBLE_REPOSITORY}/`;
    const action =
      raw.method === "GET" || raw.method === "HEAD" ? "pull" : raw.method === "DELETE" ? "delete" : "push";
    const bearer = /^Bearer (.*)$/.exec(request.headers.get("authorization") ?? "")?.[1] ?? "";
    const actions = tokens.get(bearer);
    if (actions === undefined)
      return failure(401, "UNAUTHORIZED", "authentication required", challenge(url.origin));
    if (!actions.includes(action)) return failure(403, "DENIED", "permission_denied: write_package");
    if (!url.pathname.startsWith(prefix))
      return failure(404, "NAME_UNKNOWN", "repository name not known to registry");
    return handle(raw, url, url.pathname.slice(prefix.length));
  };

  const challenge = (origin: string) => ({
    // The scope is a placeholder, as GHCR's is.
    "www-authenticate": `Bearer realm="${origin}/token",service="ghcr.io",scope="repository:user/image:pull"`,
  });

  const token = (url: URL, authorization: string | null): Response => {
    const scope = url.searchParams.get("scope") ?? "";
    if (
      url.searchParams.get("service") !== "ghcr.io" ||
      !scope.startsWith(`repository:${DOUBLE_REPOSITORY}:`)
    ) {
      return failure(400, "BAD_REQUEST", `wrong service or scope: ${url.search}`);
    }
    const actions = scope.slice(scope.lastIndexOf(":") + 1).split(",");
    const known = authorization === `Basic ${btoa(`${username}:${password}`)}`;
    if (authorization !== null && !known) return failure(403, "DENIED", "denied");
    if (!known && (visibility !== "public" || actions.includes("push"))) {
      return failure(401, "UNAUTHORIZED", "authentication required");
    }
    if (visibility === "missing" && !actions.includes("push") && manifests.size === 0) {
      return failure(403, "DENIED", "requested access to the resource is denied");
    }
    const value = `opaque-${++serial}-${Math.random().toString(36).slice(2)}`;
    tokens.set(value, actions);
    return Response.json({
      token: value,
      ...(options.expiresIn === undefined ? {} : { expires_in: options.expiresIn }),
    });
  };

  const handle = async (raw: Request, url: URL, path: string): Promise<Response> => {
    const blob = /^blobs\/(sha256:[0-9a-f]{64})$/.exec(path)?.[1];
    if (blob !== undefined) {
      const bytes = blobs.get(blob);
      if (bytes === undefined) return failure(404, "BLOB_UNKNOWN", "blob unknown to registry");
      if (raw.method === "HEAD") {
        return new Response(null, {
          headers: { "content-length": String(bytes.length), "docker-content-digest": blob },
        });
      }
      if (options.ignoresRange) return new Response(bytes as Uint8Array<ArrayBuffer>);
      const signature = `s${++serial}`;
      links.add(signature);
      const location = `http://127.0.0.1:${storage.port}/${blob}?sig=${signature}`;
      return new Response(null, { status: 307, headers: { location } });
    }
    if (path === "blobs/uploads/" && raw.method === "POST") {
      const session = `u${++serial}`;
      sessions.add(session);
      // Another path than the one asked, and a query of its own, as GHCR's.
      const location = `/v2/${DOUBLE_REPOSITORY}/blobs/upload/${session}?state=a%2Bb%2F%3D`;
      return new Response(null, { status: 202, headers: { location } });
    }
    const session = /^blobs\/upload\/(u[0-9]+)$/.exec(path)?.[1];
    if (session !== undefined && raw.method === "PUT") {
      const bytes = await raw.bytes();
      if (!sessions.delete(session) || !url.search.startsWith("?state=a%2Bb%2F%3D&digest=")) {
        return failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
      }
      if (Number(raw.headers.get("content-length")) !== bytes.length)
        return failure(400, "SIZE_INVALID", "no length");
      const digest = url.searchParams.get("digest") ?? "";
      if (digest !== sha256(bytes))
        return failure(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
      blobs.set(digest, bytes);
      return new Response(null, { status: 201, headers: { "docker-content-digest": digest } });
    }
    if (path === "tags/list") return listTags(url);
    const reference = /^manifests\/(.+)$/.exec(path)?.[1];
    if (reference !== undefined) return manifest(raw, reference);
    return failure(404, "NAME_UNKNOWN", "repository name not known to registry");
  };

  const manifest = async (raw: Request, given: string): Promise<Response> => {
    const reference = options.lowersTags ? given.toLowerCase() : given;
    if (raw.method === "DELETE") {
      if (!options.deletes) return failure(405, "UNSUPPORTED", "The operation is unsupported.");
      for (const [tag, digest] of tags) if (digest === reference) tags.delete(tag);
      if (manifests.delete(reference)) return new Response(null, { status: 202 });
      return failure(404, "MANIFEST_UNKNOWN", "manifest unknown");
    }
    if (raw.method === "PUT") {
      const bytes = await raw.bytes();
      const json = JSON.parse(new TextDecoder().decode(bytes));
      const custom =
        json.artifactType !== undefined || !json.config.mediaType.endsWith("image.config.v1+json");
      if (options.refusesArtifactTypes !== undefined && custom) {
        return failure(options.refusesArtifactTypes, "MANIFEST_INVALID", "unsupported artifact type");
      }
      const named = [json.config, ...json.layers].map(({ digest }) => digest as string);
      const missing = options.atMissingBlob && named.find((digest) => !blobs.has(digest));
      if (missing) return (options.atMissingBlob as (digest: string) => Response)(missing);
      const digest = sha256(bytes);
      manifests.set(digest, { mediaType: raw.headers.get("content-type") ?? "", bytes });
      if (!reference.startsWith("sha256:")) tags.set(reference, digest);
      return new Response(null, { status: 201, headers: { "docker-content-digest": digest } });
    }
    const digest = tags.get(reference) ?? reference;
    const found = manifests.get(digest);
    if (found === undefined) return failure(404, "MANIFEST_UNKNOWN", "manifest unknown");
    const headers = { "content-type": found.mediaType, "docker-content-digest": digest };
    if (raw.headers.get("if-none-match") === `"${digest}"`)
      return new Response(null, { status: 304, headers });
    return new Response(raw.method === "HEAD" ? null : (found.bytes as Uint8Array<ArrayBuffer>), { headers });
  };

  const listTags = (url: URL): Response => {
    if (tags.size === 0) return failure(404, "NAME_UNKNOWN", "repository name not known to registry");
    const all = [...tags.keys()];
    const size = Math.min(tagsPerPage, Number(url.searchParams.get("n") ?? tagsPerPage));
    const last = url.searchParams.get("last");
    // Oldest first: the order of insertion, not of the alphabet.
    const from = last === null ? 0 : all.indexOf(last) + 1;
    const page = all.slice(from, from + size);
    const more = from + size < all.length;
    const link = `</v2/${DOUBLE_REPOSITORY}/tags/list?n=${size}&last=${encodeURIComponent(page.at(-1) ?? "")}>; rel="next"`;
    return Response.json({ name: DOUBLE_REPOSITORY, tags: page }, more ? { headers: { link } } : {});
  };

  return {
    host: `127.0.0.1:${registry.port}`,
    storageHost: `127.0.0.1:${storage.port}`,
    requests,
    blobs,
    manifests,
    tags,
    faults,
    expireTokens: () => {
      tokens = new Map();
    },
    expireLinks: () => {
      links = new Set();
    },
    count: (method, path) =>
      requests.filter((request) => request.method === method && path.test(request.path)).length,
    close: () => {
      registry.stop(true);
      storage.stop(true);
    },
  };
}

export interface RawServer {
  readonly host: string;
  /** The Range header of each request. */
  readonly ranges: (string | undefined)[];
  /** Resolves when a connection has ended. */
  readonly left: Promise<void>;
  /** Ends the newest connection. */
  hangUp(): void;
  close(): void;
}

/** What a raw server does with a request: bytes to send as they are, and whether to hang up afterwards. */
export interface RawAnswer {
  readonly head: string;
  readonly body: Uint8Array;
  readonly hangUp: boolean;
}

/** A server that sends what no proper server would, such as a body that ends early. */
export function startRaw(answer: (range: string | undefined, count: number) => RawAnswer): RawServer {
  const ranges: (string | undefined)[] = [];
  const left = Promise.withResolvers<void>();
  let newest: { end(): void } | undefined;
  const server = Bun.listen<undefined>({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, data) {
        newest = socket;
        const range = /^range: *(.*)$/im.exec(data.toString("latin1"))?.[1]?.trim();
        ranges.push(range);
        const { head, body, hangUp } = answer(range, ranges.length);
        socket.write(
          Buffer.concat([Buffer.from(`${head.trim().replaceAll(/\n */g, "\r\n")}\r\n\r\n`), body]),
        );
        socket.flush();
        if (hangUp) socket.end();
      },
      close() {
        left.resolve();
      },
    },
  });
  return {
    host: `127.0.0.1:${server.port}`,
    ranges,
    left: left.promise,
    hangUp: () => newest?.end(),
    close: () => server.stop(true),
  };
}

/** An error as registries send it. */
export function failure(
  status: number,
  code: string,
  message: string,
  headers: Record<string, string> = {},
): Response {
  return Response.json({ errors: [{ code, message }] }, { status, headers });
}

/** A fault that answers the first `times` requests that match, and lets the others pass. */
export function faultTimes(times: number, method: string, path: RegExp, answer: () => Response): Fault {
  let left = times;
  return (request) =>
    left > 0 && request.method === method && path.test(request.path) && left-- > 0 ? answer() : undefined;
}

/** A blob, or the part of it that a Range header asks for. */
export function ranged(bytes: Uint8Array | undefined, range: string | null): Response {
  if (bytes === undefined) return new Response("BlobNotFound", { status: 404 });
  const match = /^bytes=([0-9]+)-([0-9]*)$/.exec(range ?? "");
  if (match === null) return new Response(bytes as Uint8Array<ArrayBuffer>);
  const first = Number(match[1]);
  const last = Math.min(match[2] === "" ? Number.POSITIVE_INFINITY : Number(match[2]), bytes.length - 1);
  if (first > last)
    return new Response(null, { status: 416, headers: { "content-range": `bytes */${bytes.length}` } });
  return new Response(bytes.slice(first, last + 1), {
    status: 206,
    headers: { "content-range": `bytes ${first}-${last}/${bytes.length}` },
  });
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
