/**
 * A double of GitHub's REST API for container packages, not the real one: it answers as GitHub documents and as
 * users report. It deletes in the maps of a registry double, which stands for ghcr.io.
 * https://docs.github.com/en/rest/packages/packages
 * https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
 */
import type { RegistryDouble } from "./registry-double.ts";

export interface ApiRequest {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: Headers;
}

export interface GitHubDoubleOptions {
  readonly owner?: string;
  readonly ownerType?: "Organization" | "User";
  readonly packageName?: string;
  readonly token?: string;
  /**
   * What the token may do. Without the role of an administrator a deletion reads as if nothing were there; without
   * any right the package does.
   */
  readonly right?: "admin" | "read" | "none";
  /** Digests of versions that were downloaded more than 5000 times. */
  readonly popular?: ReadonlySet<string>;
  /** The path below which a GitHub Enterprise Server has its API. */
  readonly prefix?: string;
}

export interface GitHubDouble {
  /** For GITHUB_API_URL. */
  readonly url: string;
  readonly requests: ApiRequest[];
  /** Called for every request, in this order, until one answers. */
  readonly faults: ((request: ApiRequest) => Response | undefined)[];
  count(method: string, path: RegExp): number;
  close(): void;
}

export function startGitHub(
  registry: Pick<RegistryDouble, "manifests" | "tags">,
  options: GitHubDoubleOptions = {},
): GitHubDouble {
  const {
    owner = "owner",
    ownerType = "Organization",
    packageName = "repo/nix-cache",
    token = "ghp_secret",
    right = "admin",
    popular = new Set(),
    prefix = "",
  } = options;
  const requests: ApiRequest[] = [];
  const faults: GitHubDouble["faults"] = [];
  /** Ids are given in the order of the pushes. */
  const ids = new Map<string, number>();
  const idOf = (digest: string): number => {
    const id = ids.get(digest) ?? 7_000_000 + ids.size;
    ids.set(digest, id);
    return id;
  };
  const tagsOf = (digest: string) => [...registry.tags].flatMap(([tag, to]) => (to === digest ? [tag] : []));
  const versions = () => [...registry.manifests.keys()].map((digest) => ({ digest, id: idOf(digest) }));
  const describe = (digest: string, id: number) => ({
    id,
    name: digest,
    url: `${server.url.origin}${prefix}/orgs/${owner}/packages/container/x/versions/${id}`,
    created_at: "2026-01-01T00:00:00Z",
    updated_at: "2026-01-01T00:00:00Z",
    metadata: { package_type: "container", container: { tags: tagsOf(digest) } },
  });

  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(raw) {
      const url = new URL(raw.url);
      const request = {
        method: raw.method,
        path: url.pathname + url.search,
        headers: new Headers(raw.headers),
      };
      requests.push(request);
      for (const fault of faults) {
        const answer = fault(request);
        if (answer !== undefined) return answer;
      }
      if (!/^nixcache/.test(request.headers.get("user-agent") ?? ""))
        return message(403, "Request forbidden by administrative rules.");
      if (request.headers.get("authorization") !== `Bearer ${token}`) return message(401, "Bad credentials");
      if (!url.pathname.startsWith(`${prefix}/`)) return message(404, "Not Found");
      return answer(raw.method, url, url.pathname.slice(prefix.length));
    },
  });

  const answer = (method: string, url: URL, path: string): Response => {
    if (method === "GET" && path === `/users/${owner}`)
      return Response.json({ login: owner, type: ownerType });
    const folder = `/${ownerType === "Organization" ? "orgs" : "users"}/${owner}/packages/container/${encodeURIComponent(packageName)}/versions`;
    if (!path.startsWith(folder) || right === "none") return message(404, "Package not found.");
    if (path === folder && method === "GET") return list(url);
    const id = Number(path.slice(folder.length + 1));
    const version = versions().find((version) => version.id === id);
    if (version === undefined) return message(404, "Package version not found.");
    if (method === "GET") return Response.json(describe(version.digest, id));
    if (method !== "DELETE") return message(404, "Not Found");
    if (right !== "admin") return message(404, "Package not found.");
    return remove(version.digest);
  };

  /** The newest first. */
  const list = (url: URL): Response => {
    const all = versions().reverse();
    const size = Math.min(100, Number(url.searchParams.get("per_page") ?? 30));
    const page = Number(url.searchParams.get("page") ?? 1);
    const next = new URL(url);
    // The owner's number in the place of its name, as GitHub's own links have it.
    next.searchParams.set("page", String(page + 1));
    const headers: Record<string, string> =
      page * size < all.length ? { link: `<${next.href}>; rel="next", <${next.href}>; rel="last"` } : {};
    const some = all.slice((page - 1) * size, page * size);
    return Response.json(
      some.map(({ digest, id }) => describe(digest, id)),
      { headers },
    );
  };

  const remove = (digest: string): Response => {
    const tagged = new Set(registry.tags.values());
    if (tagged.has(digest) && tagged.size === 1) {
      return message(
        400,
        "You cannot delete the last tagged version of a package. You must delete the package instead.",
      );
    }
    if (popular.has(digest)) {
      return message(
        400,
        "Publicly visible package versions with more than 5000 downloads cannot be deleted. Contact GitHub support for further assistance.",
      );
    }
    registry.manifests.delete(digest);
    for (const tag of tagsOf(digest)) registry.tags.delete(tag);
    return new Response(null, { status: 204 });
  };

  return {
    url: `${server.url.origin}${prefix}`,
    requests,
    faults,
    count: (method, path) =>
      requests.filter((request) => request.method === method && path.test(request.path)).length,
    close: () => void server.stop(true),
  };
}

/** An error as GitHub sends it. */
export function message(status: number, text: string, headers: Record<string, string> = {}): Response {
  return Response.json(
    { message: text, documentation_url: "https://docs.github.com/rest", status: String(status) },
    { status, headers },
  );
}
