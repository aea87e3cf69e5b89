/**
 * From the name of a repository at GitHub to that of its cache. GitHub allows more than registries do: capitals, and
 * names such as `.dotfiles`, `foo-`, `__x` or `a..b`.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
 */
import { digestHex, digestOf } from "./digest.ts";

/** The package below `OWNER/REPO` that is its cache. */
export const CACHE_PACKAGE = "nix-cache";

/** One part of a repository name, between slashes. */
export const NAME_COMPONENT = "[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*";

const COMPONENT = new RegExp(`^${NAME_COMPONENT}$`);

/** Organisations of an enterprise have an underscore; accounts of old have hyphens anywhere. */
const GITHUB_NAME = /^[A-Za-z0-9_-]+\/(?!\.{1,2}$)[A-Za-z0-9._-]+$/;

/** What a name ends with that GitHub has in another form: `.dotfiles` is not `dotfiles`. */
const MARK = /-x[0-9a-f]{8}$/;

/** Whether `text` may be `OWNER/REPO` at GitHub. */
export function isGitHubName(text: string): boolean {
  return GITHUB_NAME.test(text);
}

/** The repository name of the cache of `OWNER/REPO` at any registry. */
export function cacheNameOf(gitHubName: string): string {
  return [...gitHubName.split("/").map(component), CACHE_PACKAGE].join("/");
}

/**
 * Whether the first part of a repository name stands for an account that GitHub has by another name: its registry
 * has no place for it.
 */
export function isRenamedOwner(repository: string): boolean {
  return MARK.test(repository.split("/")[0] ?? "");
}

/**
 * In lower case, as GitHub does not tell cases apart. What registries refuse becomes its words and a mark of the
 * SHA-256 of the name, joined by hyphens, so that no two names meet by accident.
 */
function component(name: string): string {
  const lower = name.toLowerCase();
  if (COMPONENT.test(lower)) return lower;
  const words = lower.split(/[^a-z0-9]+/).filter((word) => word !== "");
  return [...words, `x${digestHex(digestOf(lower)).slice(0, 8)}`].join("-");
}
