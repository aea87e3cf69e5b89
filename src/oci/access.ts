/** What a request does to a repository, and the actions that a token for it names. */

/** `mount` is to push what another repository has, which the token must be good to pull from. */
export type Access = "pull" | "push" | "mount" | "delete";

/** https://distribution.github.io/distribution/spec/auth/scope/ */
export const ACTIONS: Readonly<Record<Access, string>> = {
  pull: "pull",
  push: "pull,push",
  mount: "pull,push",
  delete: "pull,push,delete",
};
