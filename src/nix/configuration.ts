/** Nix's configuration as Nix itself sees it, out of all its files and variables. */
import { NixcacheError, preview } from "../errors.ts";
import { EXPERIMENTAL } from "./ask.ts";
import type { RunCommand } from "./command.ts";
import { errorIn } from "./error-text.ts";
import { refuseTooOld } from "./least-version.ts";
import type { Environment } from "./location.ts";

export interface NixConfiguration {
  readonly substituters: readonly string[];
  readonly trustedPublicKeys: readonly string[];
  readonly requireSigs: boolean;
  readonly trustedUsers: readonly string[];
  /** Those that users who are not trusted may ask for. */
  readonly trustedSubstituters: readonly string[];
  /** How long a narinfo counts that a cache has given, and a miss, in milliseconds. */
  readonly positiveTtlMs: number;
  readonly negativeTtlMs: number;
}

/** Nix's own defaults, in seconds. */
const POSITIVE_TTL_S = 30 * 24 * 3600;
const NEGATIVE_TTL_S = 3600;

/** The newer spelling first: the older one is a deprecated alias of it since 2.20. */
const COMMANDS = [["config", "show"], ["show-config"]] as const;

/** Variables that only add to the files: without them, what the daemon of the machine goes by is left. */
const OWN_FILES = { NIX_USER_CONF_FILES: "", NIX_CONFIG: "" };

interface ReadOptions {
  readonly of: "user" | "machine";
  readonly signal?: AbortSignal;
}

/** @throws `nix-store` when Nix cannot be asked, or cannot read its own configuration. */
export async function readConfiguration(
  run: RunCommand,
  env: Environment,
  options: ReadOptions,
): Promise<NixConfiguration> {
  return parseConfiguration(await readSettings(run, env, options));
}

/** All settings, by name: objects with their `value`. @throws as `readConfiguration` */
export async function readSettings(run: RunCommand, env: Environment, options: ReadOptions): Promise<object> {
  const own = options.of === "machine" ? { ...env, ...OWN_FILES } : env;
  let failure = "";
  for (const command of COMMANDS) {
    const argv = ["nix", ...EXPERIMENTAL, ...command, "--json"];
    const { exitCode, stdout, stderr } = await run(argv, own, options.signal);
    options.signal?.throwIfAborted();
    if (exitCode === 0) return parseSettings(stdout);
    refuseTooOld(stderr);
    failure = errorIn(stderr);
    // Whatever else is wrong, the older spelling would say the same.
    if (!stderr.includes("is not a recognised command")) break;
  }
  throw new NixcacheError("nix-store", `Nix cannot say what its configuration is: ${failure}`, {
    hint: "Mend the file that it names, then run this again.",
  });
}

function parseSettings(json: string): object {
  let settings: unknown;
  try {
    settings = JSON.parse(json);
  } catch (cause) {
    throw wrong(preview(json), "JSON", cause);
  }
  if (typeof settings === "object" && settings !== null) return settings;
  throw wrong(preview(settings), "an object");
}

export function parseConfiguration(settings: object): NixConfiguration {
  const value = (name: string): unknown =>
    (settings as Record<string, { value?: unknown } | undefined>)[name]?.value;
  const texts = (name: string): string[] => {
    const list = value(name);
    if (Array.isArray(list) && list.every((text) => typeof text === "string")) return list;
    throw wrong(`${name} = ${preview(list)}`, "a list of texts");
  };
  const seconds = (name: string, usual: number): number => {
    const given = value(name);
    return typeof given === "number" && given >= 0 ? given : usual;
  };
  return {
    substituters: texts("substituters"),
    trustedPublicKeys: texts("trusted-public-keys"),
    requireSigs: value("require-sigs") !== false,
    trustedUsers: texts("trusted-users"),
    trustedSubstituters: texts("trusted-substituters"),
    positiveTtlMs: seconds("narinfo-cache-positive-ttl", POSITIVE_TTL_S) * 1000,
    negativeTtlMs: seconds("narinfo-cache-negative-ttl", NEGATIVE_TTL_S) * 1000,
  };
}

function wrong(found: string, expected: string, cause?: unknown): NixcacheError {
  return new NixcacheError("nix-store", `Nix's configuration: got ${found}, expected ${expected}`, { cause });
}

/** Such as `2.8.0`, from what `nix --version` prints; undefined where it prints something else. */
export async function readVersion(
  run: RunCommand,
  env: Environment,
  signal?: AbortSignal,
): Promise<string | undefined> {
  const { stdout } = await run(["nix", "--version"], env, signal);
  signal?.throwIfAborted();
  return /\) (\d+\.\d+\S*)/.exec(stdout)?.[1];
}
