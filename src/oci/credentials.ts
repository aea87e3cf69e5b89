/**
 * Where a person's registry credentials are. Looked for in this order; the first that has some for the host wins:
 *
 * 1. `GITHUB_TOKEN`, then `GH_TOKEN`, for ghcr.io alone: whoever sets a variable for this run means it
 * 2. the file that `REGISTRY_AUTH_FILE` names, then containers' `auth.json` (podman, skopeo):
 *    `$XDG_RUNTIME_DIR/containers/auth.json`, `~/.config/containers/auth.json`
 * 3. docker's `config.json` in `$DOCKER_CONFIG` or `~/.docker`
 * 4. `gh auth token`, for ghcr.io alone
 *
 * Within a file: `credHelpers`, then `auths`, then `credsStore`.
 * https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
 * https://docs.docker.com/reference/cli/docker/login/#credential-stores
 *
 * Secrets are returned and go nowhere else: no message holds one, no argument of a command does.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, systemCode } from "../errors.ts";
import { GHCR_HOST } from "./reference.ts";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** Runs a program with `input` on stdin; undefined when it is not installed. Output beyond 64 KiB may be cut. */
export type RunProgram = (
  command: readonly string[],
  input: string,
) => Promise<{ readonly exitCode: number; readonly stdout: string } | undefined>;

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
  /** Default: really runs it, for at most 10 s. */
  readonly run?: RunProgram | undefined;
  /**
   * Told what was passed over: a file that cannot be read, a helper that failed. None of that stops the search,
   * as public caches need no credentials at all.
   */
  readonly warn?: ((message: string) => void) | undefined;
}

const HELPER_TIMEOUT_MS = 10_000;
const MAX_OUTPUT = 64 * 1024;

/**
 * @param host as in a cache reference: `ghcr.io`, `localhost:5000`.
 * @param repository for `auth.json` files that have credentials for a part of a host only.
 */
export async function findCredentials(
  host: string,
  sources: CredentialSources,
  repository = "",
): Promise<Credentials | undefined> {
  const token = sources.githubToken || sources.ghToken;
  if (host === GHCR_HOST && token) return { username: sources.githubActor || "nixcache", password: token };
  for (const file of filesOf(sources)) {
    const found = await fromFile(file, host, repository, sources);
    if (found !== undefined) return found;
  }
  return host === GHCR_HOST ? fromGitHubCli(sources) : undefined;
}

function filesOf({
  home,
  dockerConfig,
  xdgRuntimeDir,
  xdgConfigHome,
  registryAuthFile,
}: CredentialSources): string[] {
  const configHome = xdgConfigHome || (home && join(home, ".config"));
  const docker = dockerConfig || (home && join(home, ".docker"));
  return [
    registryAuthFile,
    xdgRuntimeDir && join(xdgRuntimeDir, "containers", "auth.json"),
    configHome && join(configHome, "containers", "auth.json"),
    docker && join(docker, "config.json"),
  ].filter((file): file is string => Boolean(file));
}

async function fromFile(
  file: string,
  host: string,
  repository: string,
  sources: CredentialSources,
): Promise<Credentials | undefined> {
  const config = await readConfig(file, sources);
  if (config === undefined) return undefined;
  const helpers = record(config.credHelpers);
  for (const key of keysOf(host, repository)) {
    const helper = own(helpers, key);
    if (typeof helper === "string" && helper !== "") {
      const found = await fromHelper(helper, key, sources);
      if (found !== undefined) return found;
    }
  }
  const auths = record(config.auths);
  for (const key of keysOf(host, repository)) {
    const found = fromAuth(own(auths, key), `${file}: auths[${JSON.stringify(key)}]`, sources);
    if (found !== undefined) return found;
  }
  const store = config.credsStore;
  return typeof store === "string" && store !== "" ? fromHelper(store, host, sources) : undefined;
}

/** How files name a host: with the repository, most exact first, and in docker's old ways. */
function keysOf(host: string, repository: string): string[] {
  const parts = repository.split("/").filter(Boolean);
  const paths = parts.map((_, i) => `${host}/${parts.slice(0, parts.length - i).join("/")}`);
  return [...paths, host, `https://${host}`, `https://${host}/v2/`, `https://${host}/v1/`, `http://${host}`];
}

async function readConfig(
  file: string,
  sources: CredentialSources,
): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const code = systemCode(error);
    if (code !== "ENOENT" && code !== "ENOTDIR")
      sources.warn?.(`credentials: cannot read ${file} (${messageOf(error)})`);
    return undefined;
  }
  try {
    return record(JSON.parse(text));
  } catch {
    // The parser's message may quote the file, and with it a secret.
    sources.warn?.(`credentials: ${file} is no JSON`);
    return undefined;
  }
}

function fromAuth(value: unknown, where: string, { warn }: CredentialSources): Credentials | undefined {
  const { auth, username, password, identitytoken } = record(value);
  if (typeof auth === "string" && auth !== "") {
    const text = Buffer.from(auth, "base64").toString("utf8").replace(/\0+$/, "");
    const colon = text.indexOf(":");
    // Docker leaves the password empty when there is an identity token.
    if (colon > 0 && colon < text.length - 1)
      return { username: text.slice(0, colon), password: text.slice(colon + 1) };
    if (colon <= 0) warn?.(`credentials: ${where}.auth is not base64 of user:password`);
  }
  if (typeof username === "string" && typeof password === "string" && password !== "")
    return { username, password };
  if (typeof identitytoken === "string" && identitytoken !== "") {
    warn?.(`credentials: ${where} has an identity token, which nixcache does not use`);
  }
  return undefined;
}

/** https://github.com/docker/docker-credential-helpers#development */
async function fromHelper(
  helper: string,
  server: string,
  sources: CredentialSources,
): Promise<Credentials | undefined> {
  // The name becomes part of a program's name.
  if (!/^[A-Za-z0-9._-]+$/.test(helper)) {
    sources.warn?.(`credentials: ${JSON.stringify(helper)} is no name of a credential helper`);
    return undefined;
  }
  const program = `docker-credential-${helper}`;
  const output = await runQuietly([program, "get"], server, sources);
  if (output === undefined) return undefined;
  let json: Record<string, unknown>;
  try {
    json = record(JSON.parse(output));
  } catch {
    sources.warn?.(`credentials: ${program} printed no JSON`);
    return undefined;
  }
  const { Username: username, Secret: secret } = json;
  if (typeof username !== "string" || typeof secret !== "string" || secret === "") return undefined;
  if (username !== "<token>") return { username, password: secret };
  sources.warn?.(`credentials: ${program} has an identity token, which nixcache does not use`);
  return undefined;
}

async function fromGitHubCli(sources: CredentialSources): Promise<Credentials | undefined> {
  const token = (await runQuietly(["gh", "auth", "token", "--hostname", "github.com"], "", sources))?.trim();
  return token ? { username: sources.githubActor || "nixcache", password: token } : undefined;
}

/** The output of a program that succeeded. Its messages are not repeated: they may hold secrets. */
async function runQuietly(
  command: readonly string[],
  input: string,
  sources: CredentialSources,
): Promise<string | undefined> {
  const run = sources.run ?? runProgram;
  try {
    const result = await run(command, input);
    if (result?.exitCode === 0) return result.stdout;
    // Not having any for this host, or nobody being logged in, is a failure for these programs.
    if (result === undefined && command[0] !== "gh")
      sources.warn?.(`credentials: ${command[0]} is not installed`);
  } catch (error) {
    sources.warn?.(`credentials: ${command[0]} failed (${messageOf(error)})`);
  }
  return undefined;
}

const runProgram: RunProgram = async (command, input) => {
  if (Bun.which(command[0] ?? "") === null) return undefined;
  const child = Bun.spawn([...command], {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "ignore",
    timeout: HELPER_TIMEOUT_MS,
    killSignal: "SIGKILL",
    maxBuffer: MAX_OUTPUT,
  });
  const [stdout, exitCode] = await Promise.all([child.stdout.text(), child.exited]);
  return { exitCode, stdout };
};

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};
}

function own(value: Record<string, unknown>, key: string): unknown {
  return Object.hasOwn(value, key) ? value[key] : undefined;
}
