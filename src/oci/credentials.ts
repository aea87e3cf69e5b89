/**
 * Where a person's registry credentials are. Looked for in this order; the first that has some for the host wins:
 *
 * 1. `GITHUB_TOKEN`, then `GH_TOKEN`, for ghcr.io alone: whoever sets a variable for this run means it
 * 2. the file that `REGISTRY_AUTH_FILE` names, then containers' `auth.json` (podman, skopeo):
 *    `$XDG_RUNTIME_DIR/containers/auth.json`, or without that variable `/run/containers/UID/auth.json`, then
 *    `~/.config/containers/auth.json`
 * 3. docker's `config.json` in `$DOCKER_CONFIG` or `~/.docker`
 * 4. `gh auth token`, for ghcr.io alone
 *
 * Within a file: `credHelpers`, then `auths`, then `credsStore`.
 *
 * Secrets are returned and go nowhere else: no message holds one, no argument of a command does.
 */
import { join } from "node:path";
import {
  type AuthFile,
  entriesFor,
  isTable,
  type RegistryRepository,
  readAuthFile,
  serversFor,
  type Warn,
} from "./auth-file.ts";
import { type ProgramEnvironment, type RunProgram, runProgram } from "./credential-program.ts";
import { GHCR_HOST } from "./reference.ts";

export type Credentials =
  | { readonly kind: "password"; readonly username: string; readonly password: string }
  /** Exchanged for access tokens at the realm. https://distribution.github.io/distribution/spec/auth/oauth/ */
  | { readonly kind: "identity-token"; readonly token: string }
  /** Sent to the registry as it is. */
  | { readonly kind: "registry-token"; readonly token: string };

export interface CredentialSources {
  /** Values of environment variables; the empty text counts as not set. */
  readonly githubToken?: string | undefined;
  readonly ghToken?: string | undefined;
  /** `GITHUB_ACTOR`: GHCR takes any user name with a token, and logs this one. */
  readonly githubActor?: string | undefined;
  readonly home?: string | undefined;
  readonly dockerConfig?: string | undefined;
  readonly xdgRuntimeDir?: string | undefined;
  readonly xdgConfigHome?: string | undefined;
  readonly registryAuthFile?: string | undefined;
  /** The number of the user, where users have one. */
  readonly uid?: number | undefined;
  /** The environment of helpers. Default: none, so that none is found. */
  readonly helperEnvironment?: ProgramEnvironment | undefined;
  /** Default: really runs it, for at most 10 s. */
  readonly run?: RunProgram | undefined;
  /** Ends a helper. */
  readonly signal?: AbortSignal | undefined;
  /**
   * Told what was passed over: a file that cannot be read, a helper that failed. None of that stops the search,
   * as public caches need no credentials at all.
   */
  readonly warn?: Warn | undefined;
}

/** What helpers say on standard output when they have none, which is no failure. */
const NOT_FOUND = /credentials not found|no credentials (?:found|for)/i;

/** The user name by which a helper says that the secret is an identity token. */
const IDENTITY_TOKEN_USER = "<token>";

/** Credentials for a repository: files may have some for a part of a host only. */
export async function findCredentials(
  repository: RegistryRepository,
  sources: CredentialSources,
): Promise<Credentials | undefined> {
  const atGitHub = repository.host === GHCR_HOST;
  const token = sources.githubToken || sources.ghToken;
  if (atGitHub && token) return gitHubToken(token, sources);
  const warn: Warn = (message) => {
    // Whoever is stopped does not ask why.
    if (!sources.signal?.aborted) sources.warn?.(`credentials: ${message}`);
  };
  for (const path of filesOf(sources)) {
    const file = await readAuthFile(path, path === sources.registryAuthFile, warn);
    const found = file && (await fromFile(file, repository, sources, warn));
    if (found !== undefined) return found;
  }
  return atGitHub ? fromGitHubCli(sources, warn) : undefined;
}

function gitHubToken(token: string, { githubActor }: CredentialSources): Credentials {
  return { kind: "password", username: githubActor || "nixcache", password: token };
}

function filesOf(sources: CredentialSources): string[] {
  const { home, dockerConfig, xdgRuntimeDir, xdgConfigHome, registryAuthFile, uid } = sources;
  const runtime = xdgRuntimeDir
    ? join(xdgRuntimeDir, "containers")
    : uid !== undefined && join("/run/containers", String(uid));
  const configHome = xdgConfigHome || (home && join(home, ".config"));
  const docker = dockerConfig || (home && join(home, ".docker"));
  return [
    registryAuthFile,
    runtime && join(runtime, "auth.json"),
    configHome && join(configHome, "containers", "auth.json"),
    docker && join(docker, "config.json"),
  ].filter((file): file is string => Boolean(file));
}

async function fromFile(
  file: AuthFile,
  repository: RegistryRepository,
  sources: CredentialSources,
  warn: Warn,
): Promise<Credentials | undefined> {
  for (const { key, value } of entriesFor(file.credHelpers, repository)) {
    if (value === "") continue;
    if (typeof value !== "string") {
      warn(`${file.file}: credHelpers[${JSON.stringify(key)}] is not the name of a credential helper`);
      continue;
    }
    const servers = [...new Set([key, ...serversFor(file, repository)])];
    const found = await fromHelper(value, servers, file, sources, warn);
    if (found !== undefined) return found;
  }
  for (const { key, value } of entriesFor(file.auths, repository)) {
    const found = fromAuth(value, `${file.file}: auths[${JSON.stringify(key)}]`, warn);
    if (found !== undefined) return found;
  }
  if (file.credsStore === undefined) return undefined;
  return fromHelper(file.credsStore, serversFor(file, repository), file, sources, warn);
}

/** One entry of `auths`. A token goes before a password, as with docker and oras. */
function fromAuth(value: unknown, where: string, warn: Warn): Credentials | undefined {
  if (!isTable(value)) {
    if (value !== undefined && value !== null) warn(`${where} is not an object`);
    return undefined;
  }
  const { auth, username, password, identitytoken, registrytoken } = value;
  if (isToken(registrytoken, `${where}.registrytoken`, warn))
    return { kind: "registry-token", token: registrytoken };
  if (isToken(identitytoken, `${where}.identitytoken`, warn))
    return { kind: "identity-token", token: identitytoken };
  if (typeof auth === "string" && auth !== "") {
    const pair = decodePair(auth);
    if (typeof pair !== "string") return passwordOrToken(pair.username, pair.password);
    warn(`${where}.auth ${pair}`);
  }
  if (typeof username === "string" && typeof password === "string" && password !== "")
    return passwordOrToken(username, password);
  return undefined;
}

function passwordOrToken(username: string, secret: string): Credentials {
  if (username !== IDENTITY_TOKEN_USER) return { kind: "password", username, password: secret };
  return { kind: "identity-token", token: secret };
}

/** @returns what is wrong with it, in words */
function decodePair(auth: string): { username: string; password: string } | string {
  if (!/^[A-Za-z0-9+/\s]+={0,2}\s*$/.test(auth)) return "is not base64, expected base64 of user:password";
  // Docker of old padded it with NULs.
  const text = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
  const colon = text.indexOf(":");
  if (colon < 0) return "has no colon, expected base64 of user:password";
  if (colon === 0) return "has no user name, expected base64 of user:password";
  if (colon === text.length - 1) return "has no password, expected base64 of user:password";
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Whether it is one that a header can carry. */
function isToken(value: unknown, where: string, warn: Warn): value is string {
  if (value === undefined || value === null || value === "") return false;
  if (typeof value === "string" && /^[\x21-\x7e]+$/.test(value)) return true;
  warn(`${where} is not a token`);
  return false;
}

/** Asks a helper under each name in turn, unless it fails. */
async function fromHelper(
  helper: string,
  servers: readonly string[],
  { file }: AuthFile,
  sources: CredentialSources,
  warn: Warn,
): Promise<Credentials | undefined> {
  // The name becomes part of a program's name.
  if (!/^[A-Za-z0-9._-]+$/.test(helper)) {
    warn(`${file}: ${JSON.stringify(helper)} is not the name of a credential helper`);
    return undefined;
  }
  const program = `docker-credential-${helper}`;
  for (const server of servers) {
    const answer = await askProgram([program, "get"], server, sources);
    if (typeof answer === "object") {
      const found = answer.exitCode === 0 ? readHelper(answer.stdout) : undefined;
      if (typeof found === "object") return found;
      if (answer.exitCode !== 0 && NOT_FOUND.test(answer.stdout)) continue;
      const reason = found ?? `it failed with exit status ${answer.exitCode}`;
      warn(`${file}: ${program}: ${reason}. See what it says: echo ${server} | ${program} get`);
    } else warn(`${file}: ${program}: ${answer}`);
    return undefined;
  }
  return undefined;
}

/** @returns what is wrong with it, in words */
function readHelper(stdout: string): Credentials | string {
  let json: unknown;
  try {
    json = JSON.parse(stdout);
  } catch {
    return "it printed no JSON";
  }
  const { Username: username, Secret: secret } = isTable(json) ? json : {};
  if (typeof username !== "string" || typeof secret !== "string" || secret === "")
    return "it printed no Username and Secret";
  return passwordOrToken(username, secret);
}

async function fromGitHubCli(sources: CredentialSources, warn: Warn): Promise<Credentials | undefined> {
  const answer = await askProgram(["gh", "auth", "token", "--hostname", "github.com"], "", sources);
  // Whoever has no gh does not use it, and nobody being signed in is a failure for it.
  if (answer === NOT_INSTALLED) return undefined;
  if (typeof answer === "string") warn(`gh auth token: ${answer}`);
  else if (answer.exitCode === 0 && answer.stdout.trim() !== "")
    return gitHubToken(answer.stdout.trim(), sources);
  return undefined;
}

const NOT_INSTALLED = "it is not installed";

/** @returns why there is no answer, in words */
async function askProgram(
  command: readonly string[],
  input: string,
  { run = runProgram, helperEnvironment: env = {}, signal }: CredentialSources,
): Promise<{ exitCode: number; stdout: string } | string> {
  const result = await run({ command, input, env, signal });
  if (result.kind === "missing") return NOT_INSTALLED;
  return result.kind === "failed" ? result.reason : result;
}
