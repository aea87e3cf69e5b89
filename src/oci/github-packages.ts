/**
 * Deleting at GitHub's container registry: it answers 405 to the OCI DELETE, and has a REST API of its own.
 * https://docs.github.com/en/rest/packages/packages
 *
 * A version of a container package is a manifest; its `name` is the digest, its tags are those of the manifest,
 * and they go with it. It is deleted by its id, and only the list of all versions tells which id a digest has.
 * `docs/github-packages.md` has the requests as they are sent.
 *
 * What GitHub does not allow is a `Refusal`, never an error: what could not be freed stays hidden by its dead tag.
 */
import { kept } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { type Digest, isDigest } from "./digest.ts";
import { createGitHubApi, expectJson, type GitHubApiOptions, Refused, RIGHTS, saidBy } from "./github-api.ts";
import { describeExchange } from "./hop.ts";
import { parseNextLink } from "./link.ts";
import type { CallOptions, Store } from "./store.ts";

/** A container package: `ghcr.io/OWNER/NAME`. */
export interface GitHubPackage {
  /** Where GitHub's REST API is, such as `https://api.github.com`. */
  readonly api: URL;
  readonly owner: string;
  /** May have slashes. */
  readonly name: string;
}

/** The most that GitHub takes. */
const VERSIONS_PER_PAGE = 100;

/** 200,000 versions; GitHub itself gives up before that. */
const MAX_PAGES = 2_000;

/**
 * Between two deletions, in ms.
 * https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#pause-between-mutative-requests
 */
const PAUSE_MS = 1_000;

/** What a store needs to delete. */
export interface Deletion {
  readonly deleteManifest: Store["deleteManifest"];
  readonly listUntagged: NonNullable<Store["listUntagged"]>;
}

interface Version {
  readonly id: number;
  /** How many. */
  readonly tags: number;
}

/** Deleting in a package, in the place of what its store does. */
export function gitHubPackages(
  { api, owner, name }: GitHubPackage,
  options: Omit<GitHubApiOptions, "api">,
): Deletion {
  const { at, call } = createGitHubApi({ ...options, api });
  const subject = `${owner}/${name}`;
  let versions: Map<Digest, Version> | undefined;
  let listedAgain = false;
  /** Whether something was deleted, or tried to. */
  let asked = false;

  /** The path of the package: whether its owner is an organisation or a user is in it. */
  const folder = kept(async (by: CallOptions): Promise<string> => {
    const url = at(`/users/${encodeURIComponent(owner)}`);
    const answer = await call("GET", url, by);
    if (answer.status === 404) throw new Refused(`GitHub knows no ${owner} at ${url.host}`, true);
    const type = (expectJson(url, answer) as { type?: unknown } | null)?.type;
    const owners = type === "Organization" ? "orgs" : "users";
    return `/${owners}/${encodeURIComponent(owner)}/packages/container/${encodeURIComponent(name)}/versions`;
  });

  const list = async (path: string, by: CallOptions): Promise<Map<Digest, Version>> => {
    const found = new Map<Digest, Version>();
    let url: URL | undefined = at(`${path}?state=active&per_page=${VERSIONS_PER_PAGE}`);
    for (let page = 1; url !== undefined; page++) {
      const answer = await call("GET", url, by);
      if (answer.status === 404)
        throw new Refused(`GitHub shows no package ${subject} to this token; ${RIGHTS}`, true);
      const what = describeExchange({ method: "GET", url });
      for (const [digest, version] of decodeVersions(expectJson(url, answer), what))
        if (isDigest(digest)) found.set(digest, version);
      url = page < MAX_PAGES ? nextPage(answer.headers, url) : undefined;
    }
    return found;
  };

  const remove = async (digest: Digest, by: CallOptions): Promise<boolean> => {
    const path = await folder(by);
    versions ??= await list(path, by);
    // Once: what was pushed since. GitHub may take a while to list it.
    if (!versions.has(digest) && !listedAgain) {
      listedAgain = true;
      versions = await list(path, by);
    }
    const id = versions.get(digest)?.id;
    if (id === undefined)
      throw new Refused("GitHub lists no version with this digest; the next run tries again", false);
    const url = at(`${path}/${id}`);
    if (asked) await options.network.sleep(PAUSE_MS, by.signal);
    asked = true;
    const answer = await call("DELETE", url, by);
    if (answer.status === 404) {
      // Gone already, or no right to delete it: both read the same, but only what is there can be read.
      if ((await call("GET", url, by)).status !== 404)
        throw new Refused(
          `GitHub shows ${subject} to this token, but does not let it delete; ${RIGHTS}`,
          true,
        );
      versions.delete(digest);
      return false;
    }
    if (answer.status === 204 || answer.status === 200) {
      versions.delete(digest);
      return true;
    }
    // The last version with a tag, or one that was downloaded more than 5000 times.
    throw new Refused(`GitHub answered ${answer.status}${saidBy(answer)}`, false);
  };

  const deleteManifest: Store["deleteManifest"] = async (digest, by = {}) => {
    try {
      return await remove(digest, by);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      return { refused: error.message, everything: error.everything };
    }
  };

  const listUntagged = async (by: CallOptions = {}): Promise<Digest[]> => {
    try {
      versions ??= await list(await folder(by), by);
    } catch (error) {
      // Whoever may not look may not delete, which is said there.
      if (error instanceof Refused) return [];
      throw error;
    }
    return [...versions].filter(([, { tags }]) => tags === 0).map(([digest]) => digest);
  };

  return { deleteManifest, listUntagged };
}

/** The versions of one page, by name. @throws `protocol` */
function decodeVersions(json: unknown, what: string): [name: string, Version][] {
  const isVersion = (
    value: unknown,
  ): value is { name: string; id: number; metadata: { container: { tags: unknown[] } } } =>
    isRecord(value) &&
    typeof value.name === "string" &&
    Number.isSafeInteger(value.id) &&
    isRecord(value.metadata) &&
    isRecord(value.metadata.container) &&
    Array.isArray(value.metadata.container.tags);
  if (Array.isArray(json) && json.every(isVersion))
    return json.map(({ name, id, metadata }) => [name, { id, tags: metadata.container.tags.length }]);
  throw new NixcacheError("protocol", `${what}: got another JSON, expected a list of package versions`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** @throws `protocol` when the list goes on elsewhere: the token is for this origin alone. */
function nextPage(headers: Headers, current: URL): URL | undefined {
  const target = parseNextLink(headers.get("link"));
  if (target === undefined) return undefined;
  const next = URL.canParse(target, current.href) ? new URL(target, current) : undefined;
  if (next?.origin === current.origin) return next;
  throw new NixcacheError(
    "protocol",
    `${describeExchange({ method: "GET", url: current })}: its next page is at another origin`,
  );
}
