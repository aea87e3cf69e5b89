/**
 * The environment of programs that we start: ours without what is secret. Evaluated code reads variables by
 * `builtins.getEnv`, git runs what a checkout configures, and a builder without a sandbox sees what Nix sees.
 *
 * Every program is started with what this makes; a test looks for those that are not.
 */

/** Without a value, a variable is not set. */
type Variables = Readonly<Record<string, string | undefined>>;

/** What only nixcache itself uses: no program is handed it. */
const OURS = [
  "NIX_SIGNING_KEY",
  "NIXCACHE_SIGNING_KEY_FILE",
  "NIXCACHE_WRITE_TOKEN",
  "NIXCACHE_WRITE_TOKEN_FILE",
] as const;

/** Tokens that write packages: for the programs alone whose answer is a credential. */
const TOKENS = [
  "GITHUB_TOKEN",
  "GH_TOKEN",
  "GITHUB_ENTERPRISE_TOKEN",
  "GH_ENTERPRISE_TOKEN",
  "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
  "ACTIONS_RUNTIME_TOKEN",
] as const;

/** Of Nix, git, systemd, and a command of the person's. */
export function childEnvironment(env: Variables): Record<string, string> {
  return without(env, [...OURS, ...TOKENS]);
}

/** Of a credential helper, which may need tokens of its own clouds. */
export function helperEnvironment(env: Variables): Record<string, string> {
  return without(env, OURS);
}

function without(env: Variables, names: readonly string[]): Record<string, string> {
  const left = Object.entries(env).filter(([name, value]) => value !== undefined && !names.includes(name));
  return Object.fromEntries(left as [string, string][]);
}

/**
 * What a checkout configures and git then runs: a program that watches files, hooks, one for ssh, one that asks for
 * passwords. https://git-scm.com/docs/git-config
 */
const GIT_SETTINGS = {
  "core.fsmonitor": "false",
  "core.hooksPath": "/dev/null",
} as const;

/**
 * For programs that run git in a folder that somebody else may have made, as Nix does for a flake in a checkout: `env`
 * with settings that win over the checkout's. Git before 2.31 does not know them.
 *
 * @param more names and values of further settings
 */
export function withSafeGit(
  env: Record<string, string>,
  more: Readonly<Record<string, string>> = {},
): Record<string, string> {
  const before = Number(env.GIT_CONFIG_COUNT ?? 0);
  const first = Number.isSafeInteger(before) && before >= 0 ? before : 0;
  const settings = Object.entries({ ...GIT_SETTINGS, ...more });
  const variables = settings.flatMap(([key, value], i) => [
    [`GIT_CONFIG_KEY_${first + i}`, key],
    [`GIT_CONFIG_VALUE_${first + i}`, value],
  ]);
  return { ...env, ...Object.fromEntries(variables), GIT_CONFIG_COUNT: String(first + settings.length) };
}
