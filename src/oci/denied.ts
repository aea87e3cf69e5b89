/**
 * The sentence and the hint for a registry that refuses: a wrong token, a missing right, or a package that is
 * not there. GHCR tells these apart for nobody, so the hint names what each would need. Never "absent".
 */
import { NixcacheError } from "../errors.ts";
import type { Access } from "./access.ts";
import { sanitize } from "./body.ts";
import { isRenamedOwner } from "./github-name.ts";
import { GHCR_HOST, type RegistryReference } from "./reference.ts";
import { parseErrors } from "./retry.ts";

export interface Denial {
  readonly reference: RegistryReference;
  readonly access: Access;
  readonly hasCredentials: boolean;
  readonly status: number;
  /** The body of the answer. */
  readonly detail: string;
  /** Who refused: the token endpoint, or the registry with a token that it had issued. */
  readonly at: "token" | "registry";
}

export function deniedError(denial: Denial): NixcacheError {
  const { reference, access, hasCredentials, status, at } = denial;
  const name = `${reference.host}/${reference.repository}`;
  const verb = { pull: "read", push: "write to", mount: "mount into", delete: "delete from" }[access];
  const who = hasCredentials ? "with the credentials found" : "without credentials";
  const where = at === "token" ? "the token endpoint answered" : "it answered";
  const said = reasonIn(denial.detail);
  return new NixcacheError(
    "denied",
    `${name}: not allowed to ${verb} it ${who} (${where} ${status}${said === "" ? "" : `: ${said}`})`,
    // olareg answers so to everybody, whoever signs in.
    { hint: access !== "pull" && /\bread-only\b/i.test(said) ? READ_ONLY_HINT : hintFor(denial) },
  );
}

/** Statuses by which a registry says that it takes no uploads at all. */
export const NO_UPLOADS: readonly number[] = [405, 501];

/** For a registry that knows no such repository, and makes none. */
export const NO_PLACE_HINT = "Check the repository name; some registries want projects to be made first.";

const READ_ONLY_HINT =
  "The registry is read-only: it mirrors another one, or is under maintenance. Write to another one, or try again later.";

/** For an answer that says that nobody may write, whatever the credentials: 405 to the beginning of an upload. */
export function readOnlyError({ host, repository }: RegistryReference, status: number): NixcacheError {
  return new NixcacheError("denied", `${host}/${repository}: it takes no uploads (it answered ${status})`, {
    hint: READ_ONLY_HINT,
  });
}

function hintFor({ reference, access, hasCredentials, at }: Denial): string {
  const { host } = reference;
  const right = access === "pull" ? "packages: read" : "packages: write";
  if (host !== GHCR_HOST) {
    return hasCredentials
      ? `Check that the account may ${access} there and that its password or token is valid (docker login ${host}).`
      : `Run docker login ${host}.`;
  }
  if (isRenamedOwner(reference.repository)) {
    return "GitHub's registry has no place for an account whose name begins or ends with a hyphen. Name another registry with --cache or NIXCACHE_REGISTRY.";
  }
  const scope =
    access === "pull" ? "read:packages" : access === "delete" ? "delete:packages" : "write:packages";
  if (!hasCredentials) {
    const exist =
      access === "pull"
        ? "The package is private, or nothing was published to it yet (GHCR does not say which). "
        : "";
    return `${exist}Set GITHUB_TOKEN: in GitHub Actions with the permission "${right}", elsewhere a classic personal token with the scope ${scope}; or run docker login ghcr.io.`;
  }
  if (at === "token") {
    return `The token is expired or wrong, lacks the right (GitHub Actions: permission "${right}"; personal token: scope ${scope}), or the package does not exist.`;
  }
  return `The token is valid but lacks the right. In GitHub Actions set the permission "${right}"; if the package was made by hand, add the repository under "Manage Actions access" in the package's settings. A classic personal token needs the scope ${scope}.`;
}

function reasonIn(body: string): string {
  const reasons = parseErrors(body).map(({ code, message, detail }) => {
    const words = [code, message].filter(Boolean).join(" ");
    // Some say there what they mean, others give an object.
    return typeof detail === "string" && detail !== "" ? `${words}: ${detail}` : words;
  });
  return sanitize(reasons.join("; "));
}
