/** Whose generations a command takes, and who signs those that it writes. */
import { signingKeySource, trustedPublicKeys } from "../config.ts";
import type { Context } from "../context.ts";
import { keyFileWarning, readSigningKey } from "../nar/key-file.ts";
import { type PublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import type { Trust } from "../protocol/signed.ts";
import { type Arguments, usageError } from "./command.ts";

export const TRUST_ARGS = {
  "trusted-public-key": {
    type: "string",
    valueHint: "KEY…",
    description: "Take only generations that this key has signed",
  },
  "allow-unsigned-generations": {
    type: "boolean",
    description: "Take also generations that none of the given keys has signed",
  },
} as const;

export const SIGN_ARGS = {
  "signing-key-file": { type: "string", valueHint: "FILE", description: "Sign with this secret key" },
} as const;

export interface Trusted extends Trust {
  /** Keys that were given: of several builds of a path one that these have signed comes first. */
  readonly given: readonly PublicKey[];
}

/** @param key of what the command writes: whoever signs takes what it has signed itself. @throws `key` */
export function readTrust(given: Arguments, { env }: Pick<Context, "env">, key?: SecretKey): Trusted {
  const keys = trustedPublicKeys(given.texts("trusted-public-key"), env);
  if (key !== undefined) keys.push(publicKeyOf(key));
  const counts = keys.length === 0 || given.flag("allow-unsigned-generations") ? undefined : keys;
  return { given: keys, keys: counts, signer: key };
}

/** The key to sign with; undefined where none is set. @throws `key` */
export function signingKey(
  given: Arguments,
  { env, log }: Pick<Context, "env" | "log">,
): SecretKey | undefined {
  const source = signingKeySource(given.text("signing-key-file"), env);
  const exposed = source && keyFileWarning(source);
  if (exposed !== undefined) log.warn(exposed);
  return source && readSigningKey(source);
}

/** @throws `usage` where the command would write what it does not take itself */
export function requireSigner({ keys, signer }: Trust, what: string): void {
  if (keys === undefined || signer !== undefined) return;
  throw usageError(
    `${what}: got --trusted-public-key and no signing key, expected --signing-key-file or --allow-unsigned-generations as well`,
  );
}
