/** What the linter of workflows does not know: it is of 2023, and GitHub has got these since. */
export const NEWER = [/label "ubuntu-24\.04(-arm)?" is unknown/, /unknown permission scope "attestations"/];
