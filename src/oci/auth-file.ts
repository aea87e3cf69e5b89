/**
 * Files of registry credentials: docker's `config.json` and containers' `auth.json`.
 *
 * Their keys name hosts in many ways: `HOST`, `HOST:PORT`, `https://HOST/v1/` (docker of old, and to this day for
 * Docker Hub), `HOST/NAMESPACE` (podman). All are compared in one form, as docker, podman and oras do.
 * https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
 * https://docs.docker.com/reference/cli/docker/login/#credential-stores
 */
import { readFile } from "node:fs/promises";
import { messageOf, systemCode } from "../errors.ts";
import type { RegistryReference } from "./reference.ts";

export type RegistryRepository = Pick<RegistryReference, "scheme" | "host" | "repository">;

/** Told what cannot be used; nothing in it is secret. */
export type Warn = (message: string) => void;

export interface AuthFile {
  readonly file: string;
  readonly auths: Table;
  readonly credHelpers: Table;
  /** The helper for all hosts that have none of their own. */
  readonly credsStore: string | undefined;
}

export type Table = Readonly<Record<string, unknown>>;

/** Docker Hub's names; docker keeps its credentials under the second. */
const DOCKER_HUB: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);
export const DOCKER_HUB_SERVER = "https://index.docker.io/v1/";

/**
 * Undefined when there is no such file, or nothing in it that could be used.
 * @param expected whether somebody has named this file, so that its absence is worth a word
 */
export async function readAuthFile(
  file: string,
  expected: boolean,
  warn: Warn,
): Promise<AuthFile | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const code = systemCode(error);
    const absent = code === "ENOENT" || code === "ENOTDIR";
    if (!absent || expected) warn(`cannot read ${file} (${messageOf(error)})`);
    return undefined;
  }
  // `docker login` of old leaves an empty file behind when it is interrupted.
  if (text.trim() === "") return undefined;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    // The parser's message may quote the file, and with it a secret.
    warn(`${file} is not JSON`);
    return undefined;
  }
  if (!isTable(json)) {
    warn(`${file} is not a JSON object`);
    return undefined;
  }
  const table = (name: string): Table => {
    const value = own(json, name) ?? {};
    if (isTable(value)) return value;
    warn(`${file}: ${name} is not an object`);
    return {};
  };
  const store = own(json, "credsStore") ?? "";
  if (typeof store !== "string") warn(`${file}: credsStore is not the name of a credential helper`);
  return {
    file,
    auths: table("auths"),
    credHelpers: table("credHelpers"),
    credsStore: typeof store === "string" && store !== "" ? store : undefined,
  };
}

/** The entries for a repository, the most exact first: of its path, then of a part of it, then of its host. */
export function entriesFor(table: Table, repository: RegistryRepository): { key: string; value: unknown }[] {
  const host = sameHost(repository.host, repository.scheme);
  const path = repository.repository.toLowerCase();
  const found = Object.keys(table).flatMap((key) => {
    const place = placeOf(key, repository.scheme);
    if (place.host !== host) return [];
    const exact = key === repository.host ? 1 : 0;
    if (place.path === "" || isWithin(path, place.path)) return [{ key, rank: place.path.length, exact }];
    // Paths such as /v2/ are of the API, which is that of all of the host.
    return /^v[12]$/.test(place.path) ? [{ key, rank: 0, exact }] : [];
  });
  return found
    .toSorted((a, b) => b.rank - a.rank || b.exact - a.exact)
    .map(({ key }) => ({ key, value: own(table, key) }));
}

/** By which names a helper may know the host, the usual one first. */
export function serversFor({ auths }: AuthFile, repository: RegistryRepository): string[] {
  const usual = DOCKER_HUB.has(repository.host) ? DOCKER_HUB_SERVER : repository.host;
  // A helper that has stored some leaves the name under which it did in the file.
  return [...new Set([usual, ...entriesFor(auths, repository).map(({ key }) => key)])];
}

/** What a key is for. A key that is a URL is for all of its host, whatever its path: docker never meant one. */
function placeOf(key: string, scheme: "http" | "https"): { host: string; path: string } {
  const [, written, rest = ""] = /^(?:(https?):\/\/)?(.*)$/is.exec(key.toLowerCase()) ?? [];
  const slash = rest.indexOf("/");
  const host = slash < 0 ? rest : rest.slice(0, slash);
  const path = slash < 0 || written !== undefined ? "" : rest.slice(slash + 1).replace(/\/+$/, "");
  return { host: sameHost(host, written === "http" ? "http" : written === "https" ? "https" : scheme), path };
}

function sameHost(host: string, scheme: "http" | "https"): string {
  const short = host.toLowerCase().replace(scheme === "https" ? /:443$/ : /:80$/, "");
  return DOCKER_HUB.has(short) ? "docker.io" : short;
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}

export function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function own(value: Table, key: string): unknown {
  return Object.hasOwn(value, key) ? value[key] : undefined;
}
