/**
 * The git checkout that a folder is in, as `git` tells of it. Nothing that the checkout configures is run: somebody else
 * may have made it.
 */
import { childEnvironment, withSafeGit } from "../child-environment.ts";

export interface Checkout {
  /** Its top folder. */
  readonly folder: string;
  /** URL of `origin`, without user and password; undefined where there is none. */
  readonly origin: string | undefined;
  /** Undefined where no branch is checked out. */
  readonly branch: string | undefined;
  /** The commit, with `-dirty` behind it when tracked files differ from it; undefined before the first one. */
  readonly revision: string | undefined;
}

/** Undefined where `folder` is in no checkout, or there is no git. */
export async function readCheckout(
  folder: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<Checkout | undefined> {
  const git = (...args: string[]) => run(["git", "-C", folder, ...args], env);
  const status = async () => {
    // Without submodules: git would run itself in them, with what they configure.
    const argv = ["git", "-C", folder, "status", "--porcelain", "--untracked-files=no"];
    return run([...argv, "--ignore-submodules=dirty"], env, await withoutFilters(git));
  };
  const top = await git("rev-parse", "--show-toplevel");
  if (top === undefined) return undefined;
  const [origin, branch, revision, changes] = await Promise.all([
    git("config", "--get", "remote.origin.url"),
    git("symbolic-ref", "--quiet", "--short", "HEAD"),
    git("rev-parse", "--quiet", "--verify", "HEAD"),
    status(),
  ]);
  return {
    folder: top,
    origin: origin && webUrl(origin),
    branch: branch || undefined,
    revision: revision && (changes ? `${revision}-dirty` : revision),
  };
}

/** Settings that switch off the programs which files go through when git compares them. */
async function withoutFilters(
  git: (...args: string[]) => Promise<string | undefined>,
): Promise<Record<string, string>> {
  const pattern = "^filter\\..*\\.(clean|smudge|process|required)$";
  const names = await git("config", "--name-only", "--get-regexp", pattern);
  return Object.fromEntries((names ?? "").split("\n").flatMap((name) => (name === "" ? [] : [[name, ""]])));
}

/** The branch that a clone of `origin` checks out, as far as this checkout knows. */
export async function defaultBranch(
  folder: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<string | undefined> {
  const head = await run(["git", "-C", folder, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"], env);
  return head?.replace(/^refs\/remotes\/origin\//, "") || undefined;
}

/**
 * One name for a repository, however it was cloned: `https://HOST/PATH` for what is fetched by ssh or https, with
 * neither user, password nor `.git`. Anything else is as it is, but for a user.
 */
export function webUrl(remote: string): string {
  const [, host, path] =
    /^(?:ssh|git|git\+ssh|https?):\/\/(?:[^/]*@)?([^/]+)\/(.+)$/.exec(remote) ??
    /^(?:[^/:]*@)?([^/:@]+):(?!\/\/)(.+)$/.exec(remote) ??
    [];
  if (host === undefined || path === undefined) return remote.replace(/^([a-z+]+:\/\/)[^/]*@/, "$1");
  const name = remote.startsWith("http") ? host : host.replace(/:\d+$/, "");
  return `https://${name}/${path.replace(/^\/+|\/+$/g, "").replace(/\.git$/, "")}`;
}

/** The standard output, trimmed; undefined when it failed or cannot be run. */
async function run(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  settings: Readonly<Record<string, string>> = {},
): Promise<string | undefined> {
  const program = Bun.which(argv[0] ?? "", { PATH: env.PATH ?? "" });
  if (program === null) return undefined;
  const child = Bun.spawn([program, ...argv.slice(1)], {
    // What we ask must not make another git wait for a lock.
    env: {
      ...withSafeGit(childEnvironment(env), settings),
      GIT_OPTIONAL_LOCKS: "0",
      GIT_TERMINAL_PROMPT: "0",
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "ignore",
  });
  const [output, code] = await Promise.all([child.stdout.text(), child.exited]);
  return code === 0 ? output.trim() : undefined;
}
