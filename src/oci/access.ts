/** What a request does to a repository, and the actions that a token for it names. */

export type Access = "pull" | "push" | "delete";

/** https://distribution.github.io/distribution/spec/auth/scope/ */
export const ACTIONS: Readonly<Record<Access, string>> = {
  pull: "pull",
  push: "pull,push",
  delete: "pull,push,delete",
};
