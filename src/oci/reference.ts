/**
 * Cache references: where a cache lives. A registry repository, or an OCI image layout folder.
 *
 * | written | means |
 * |---|---|
 * | `HOST[:PORT]/NAME` | a repository of a registry; the first component has a dot or a colon, or is `localhost`, as docker tells hosts apart |
 * | `OWNER/REPO` | `ghcr.io/owner/repo/nix-cache`; names that are no such names become some, see `github-name.ts` |
 * | `/…`, `./…`, `../…`, `.`, `..`, `oci:…` | a folder |
 *
 * HTTPS, but HTTP for loopback hosts and where the reference begins with `http://`.
 * Grammar of names, tags and digests:
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
 */
import { NixcacheError, preview, withoutUser } from "../errors.ts";
import { isDigest } from "./digest.ts";
import { CACHE_PACKAGE, cacheNameOf, isGitHubName, NAME_COMPONENT } from "./github-name.ts";

export interface RegistryReference {
  readonly kind: "registry";
  readonly scheme: "https" | "http";
  /** Lower case, with the port where one was written: `ghcr.io`, `127.0.0.1:5000`, `[::1]:5000`. */
  readonly host: string;
  readonly repository: string;
}

export interface LayoutReference {
  readonly kind: "layout";
  /** As written, without `oci:`; relative to the current folder unless it begins with `/`. */
  readonly path: string;
}

export type CacheReference = RegistryReference | LayoutReference;

export const GHCR_HOST = "ghcr.io";

/** Where the repositories are; it is no registry. */
const GITHUB_HOST = "github.com";

/** Registries and clients stop at 255 characters for host and name together (distribution's reference.go). */
const MAX_LENGTH = 255;

const REPOSITORY = new RegExp(`^${NAME_COMPONENT}(?:/${NAME_COMPONENT})*$`);
const LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?";
const HOST = new RegExp(`^(?:${LABEL}(?:\\.${LABEL})*|\\[[0-9a-f:.]+\\])(?::([0-9]{1,5}))?$`);
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

/** Whether `text` may be a tag; such a text is safe in a URL path and in JSON. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

/**
 * What a method of the store got as a tag or digest: it becomes part of an address.
 * @throws `internal` for anything else.
 */
export function checkTagOrDigest(text: string): string {
  if (isTag(text) || isDigest(text)) return text;
  throw new NixcacheError(
    "internal",
    `got ${JSON.stringify(text.slice(0, 200))}, expected a tag or a digest`,
  );
}

/** @throws `reference` with a hint. */
export function parseReference(text: string): CacheReference {
  if (text === "") throw invalid(text, "it is empty");
  if (text.includes("\0")) throw invalid(text, "it holds a NUL character");
  if (text.startsWith("oci:")) return parseLayout(text);
  if (/^(?:\/|\.\.?(?:\/|$))/.test(text)) return { kind: "layout", path: text };
  return parseRegistry(text);
}

/**
 * The cache of `OWNER/REPO` at GitHub, in which no host is looked for: an account may be called `localhost`.
 * @param registry `HOST` or `HOST:PORT`, also with a scheme or a path; GHCR without one.
 * @throws `reference`
 */
export function gitHubCache(repository: string, registry: string = GHCR_HOST): CacheReference {
  const place = registry.replace(/\/+$/, "");
  const isWhole = /^[a-z]+:|^[./]/i.test(place) || looksLikeHost(place.split("/")[0] ?? "");
  return parseReference(`${isWhole ? "" : "https://"}${place}/${cacheNameOf(repository)}`);
}

/** The shortest text that `parseReference` reads back as the same reference. */
export function formatReference(reference: CacheReference): string {
  if (reference.kind === "layout") {
    return /^(?:\/|\.\.?(?:\/|$))/.test(reference.path) ? reference.path : `oci:${reference.path}`;
  }
  const { scheme, host, repository } = reference;
  const usual = isLoopback(host) ? "http" : "https";
  // Without its scheme a host of one word would read as the owner of a repository.
  const short = scheme === usual && looksLikeHost(host);
  return `${short ? "" : `${scheme}://`}${host}/${repository}`;
}

/** Where requests to its registry go. */
export function registryOrigin({ scheme, host }: Pick<RegistryReference, "scheme" | "host">): URL {
  return new URL(`${scheme}://${host}`);
}

/** Whether `host` (with or without a port) is this machine: localhost, 127.0.0.0/8 or [::1]. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/:[0-9]*$/, "");
  return name === "localhost" || name === "[::1]" || /^127(?:\.[0-9]{1,3}){3}$/.test(name);
}

function parseLayout(text: string): LayoutReference {
  const path = text.slice("oci:".length);
  if (path === "") throw invalid(text, "no folder follows oci:", "Write oci:FOLDER.");
  const tag = /:([a-zA-Z0-9_][a-zA-Z0-9._-]*)$/.exec(path);
  if (tag !== null) {
    throw invalid(
      text,
      `it names the tag ${tag[1]?.slice(0, 80)}, but a cache is a whole folder`,
      `Write oci:${path.slice(0, tag.index)}, or ./FOLDER if the colon belongs to the folder's name.`,
    );
  }
  return { kind: "layout", path };
}

function parseRegistry(text: string): RegistryReference {
  const written = /^(https?):\/\/(.*)$/is.exec(text);
  if (written === null && text.includes("://")) {
    throw invalid(
      text,
      "only https:// and http:// are known",
      "Write HOST/NAME, such as ghcr.io/owner/repo/nix-cache.",
    );
  }
  // Registries refuse capitals in names, and host names have no case: what people copy from GitHub may.
  const rest = (written?.[2] ?? text).toLowerCase();
  const slash = rest.indexOf("/");
  const first = slash < 0 ? rest : rest.slice(0, slash);
  const name = slash < 0 ? "" : rest.slice(slash + 1);

  refuseTagOrDigest(text, name);
  const isHost = written !== null || looksLikeHost(first);
  if (name === "") {
    const hint = isHost
      ? `Write ${first || "HOST"}/NAME, such as ghcr.io/owner/repo/nix-cache.`
      : `Write OWNER/REPO for a cache on GHCR, HOST/NAME for another registry, or ./${rest} for a folder.`;
    const found = slash < 0 ? "it has no slash" : "nothing follows the slash";
    throw invalid(text, isHost ? "no repository name follows the host" : found, hint);
  }
  if (!isHost) return parseGitHub(text, first, name);

  checkHost(text, first);
  if (first === GITHUB_HOST) {
    throw invalid(
      text,
      "it is the address of a repository, not of a registry",
      `Write ${name.split("/").slice(0, 2).join("/")} for the cache of that repository on GHCR.`,
    );
  }
  checkRepository(text, first, name);
  checkLength(text, first, name);
  const scheme = written?.[1]?.toLowerCase() ?? (isLoopback(first) ? "http" : "https");
  return { kind: "registry", scheme: scheme === "http" ? "http" : "https", host: first, repository: name };
}

/** As docker tells a host from the first part of a name. */
function looksLikeHost(first: string): boolean {
  return /[.:[]/.test(first) || first === "localhost";
}

function parseGitHub(text: string, owner: string, repo: string): RegistryReference {
  if (repo.includes("/")) {
    throw invalid(
      text,
      `${preview(owner)} is no host, and OWNER/REPO has one slash`,
      `Write ${GHCR_HOST}/${owner}/${repo} for a package on GHCR, or ./${owner}/${repo} for a folder.`,
    );
  }
  if (!isGitHubName(`${owner}/${repo}`)) {
    throw invalid(
      text,
      `${preview(`${owner}/${repo}`, 200)} is no repository name`,
      'GitHub\'s names are made of letters, digits, ".", "_" and "-".',
    );
  }
  const repository = cacheNameOf(`${owner}/${repo}`);
  checkLength(text, GHCR_HOST, repository);
  return { kind: "registry", scheme: "https", host: GHCR_HOST, repository };
}

function checkLength(text: string, host: string, repository: string): void {
  if (host.length + 1 + repository.length > MAX_LENGTH)
    throw invalid(text, `it is longer than ${MAX_LENGTH} characters`);
}

function refuseTagOrDigest(text: string, name: string): void {
  const last = name.slice(name.lastIndexOf("/") + 1);
  const mark = /[@:]/.exec(name.includes("@") ? name : last);
  if (mark === null) return;
  const [what, sign] = name.includes("@") ? ["digest", "@"] : ["tag", ":"];
  throw invalid(
    text,
    `it names a ${what}, but a cache is a whole repository`,
    `Leave out everything from the last "${sign}" on.`,
  );
}

function checkHost(text: string, host: string): void {
  const match = HOST.exec(host);
  const port = match?.[1];
  // A last label that is a number makes an IPv4 address, and not every one is: such a text is no URL.
  const usable = match !== null && URL.canParse(`https://${host}`);
  if (!usable || (port !== undefined && (Number(port) < 1 || Number(port) > 65535))) {
    throw invalid(
      text,
      `${preview(host)} is no HOST or HOST:PORT`,
      "Write a host such as ghcr.io or localhost:5000.",
    );
  }
}

function checkRepository(text: string, host: string, name: string): void {
  if (REPOSITORY.test(name)) return;
  const short =
    host === GHCR_HOST && name.endsWith(`/${CACHE_PACKAGE}`) ? name.slice(0, -CACHE_PACKAGE.length - 1) : "";
  if (isGitHubName(short)) {
    throw invalid(
      text,
      `${preview(name, 200)} is no repository name`,
      `Write ${short}, which stands for ${GHCR_HOST}/${cacheNameOf(short)}.`,
    );
  }
  throw invalid(
    text,
    `${preview(name, 200)} is no repository name`,
    'Names are made of a-z and 0-9, joined by single ".", "_", "__", "-" or "/".',
  );
}

function invalid(
  text: string,
  found: string,
  hint = "Write OWNER/REPO, HOST/NAME or a folder such as ./cache.",
): NixcacheError {
  return new NixcacheError(
    "reference",
    `${preview(withoutUser(text), 300)} is no cache reference: ${withoutUser(found)}`,
    {
      hint: hint.length > 400 ? "Write OWNER/REPO, HOST/NAME or a folder such as ./cache." : hint,
    },
  );
}
