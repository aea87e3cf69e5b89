/**
 * Authorization for one registry repository: bearer tokens from a realm, or Basic.
 * https://distribution.github.io/distribution/spec/auth/token/
 *
 * Nothing is asked for before the registry has answered 401. Tokens are cached for each kind of access;
 * GHCR's are opaque and carry no lifetime, so a 401 may come at any time and renews once. All requests that
 * wait for a token share one flight. Secrets go to the registry's own origin and to its realm, nowhere else.
 */
import { NixcacheError } from "../errors.ts";
import type { Access } from "./access.ts";
import { sanitize } from "./body.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import { deniedError } from "./denied.ts";
import { isLoopback, type RegistryReference, registryOrigin } from "./reference.ts";
import { basicHeader, fetchToken, type Token, type TokenOptions } from "./token.ts";

/**
 * How old credentials must be, in milliseconds, to be looked up again when they are refused: helpers give some that
 * end (Amazon's after 12 hours), and may have failed for a while.
 */
const LOOK_UP_AGAIN_MS = 60_000;

export interface Authenticator {
  /**
   * The Authorization header to send: ahead of a token's end, and while it is renewed, the next one. Undefined
   * before the registry has asked for any.
   * @throws as `renew`.
   */
  ready(access: Access): Promise<string | undefined>;
  /**
   * The header to send after a 401.
   * @param used what was sent; when another request has renewed it since, that result is returned.
   * @param header the `WWW-Authenticate` of the 401.
   * @throws `denied`, `protocol`, `unreachable`; a TransientFailure for what another try may mend.
   */
  renew(access: Access, used: string | undefined, header: string | null): Promise<string>;
  /** Whether credentials were found, for messages. Undefined before anybody looked. */
  hasCredentials(): boolean | undefined;
}

export interface AuthenticatorOptions extends TokenOptions {
  /** Asked when the registry first wants something, and again when it refuses what was found long ago. */
  readonly credentials: () => Promise<Credentials | undefined>;
}

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { network } = options;
  const cache = new Map<Access, Token>();
  const flights = new Map<Access, Promise<string>>();
  const credentials = createCredentialMemory(options);
  /** The `WWW-Authenticate` that last led to a token. */
  let challenge: string | null | undefined;

  const current = (access: Access): string | undefined => {
    const cached = cache.get(access);
    return cached !== undefined && network.now() < cached.until ? cached.header : undefined;
  };

  const obtain = async (access: Access, used: string | undefined, header: string | null): Promise<string> => {
    const authorizeWith = (found: Credentials | undefined) => authorize(options, access, header, found);
    const found = await credentials.lookUp();
    let token: Token;
    try {
      token = await authorizeWith(found);
    } catch (error) {
      const other = isDenied(error) ? await credentials.lookUpAgain(found) : undefined;
      if (other === undefined) throw error;
      token = await authorizeWith(other);
    }
    if (token.header === used) {
      const other = await credentials.lookUpAgain(found);
      if (other !== undefined) token = await authorizeWith(other);
    }
    cache.set(access, token);
    challenge = header;
    return token.header;
  };

  const renew: Authenticator["renew"] = async (access, used, header) => {
    const now = current(access);
    if (now !== undefined && now !== used) return now;
    let flight = flights.get(access);
    if (flight === undefined) {
      cache.delete(access);
      flight = obtain(access, used, header).finally(() => flights.delete(access));
      flights.set(access, flight);
    }
    return flight;
  };

  return {
    renew,
    ready: async (access) =>
      current(access) ?? (challenge === undefined ? undefined : renew(access, undefined, challenge)),
    hasCredentials: credentials.found,
  };
}

interface CredentialMemory {
  /** What was found before, else what is found now. */
  lookUp(): Promise<Credentials | undefined>;
  /** What is found now, unless it was looked for only lately; undefined where that is the same as `before`. */
  lookUpAgain(before: Credentials | undefined): Promise<Credentials | undefined>;
  /** Undefined before anybody looked. */
  found(): boolean | undefined;
}

function createCredentialMemory({ credentials, network }: AuthenticatorOptions): CredentialMemory {
  let memory: { readonly at: number; readonly found: Promise<Credentials | undefined> } | undefined;
  let found: boolean | undefined;
  const lookUp = async (): Promise<Credentials | undefined> => {
    memory ??= { at: network.now(), found: credentials() };
    try {
      const result = await memory.found;
      found = result !== undefined;
      return result;
    } catch (error) {
      memory = undefined;
      throw error;
    }
  };
  return {
    lookUp,
    async lookUpAgain(before) {
      if (memory !== undefined && network.now() - memory.at >= LOOK_UP_AGAIN_MS) memory = undefined;
      const after = await lookUp();
      return Bun.deepEquals(before, after) ? undefined : after;
    },
    found: () => found,
  };
}

async function authorize(
  options: AuthenticatorOptions,
  access: Access,
  header: string | null,
  credentials: Credentials | undefined,
): Promise<Token> {
  const challenges = parseChallenges(header);
  const bearer = challenges.find((challenge) => challenge.scheme === "bearer");
  if (bearer === undefined) return basic(options, access, challenges, credentials);
  if (credentials?.kind === "registry-token")
    return { header: `Bearer ${credentials.token}`, until: Number.POSITIVE_INFINITY };
  const url = realmOf(options.reference, bearer);
  if (credentials !== undefined) refusePlainStranger(options.reference, url);
  const realm = { url, service: bearer.parameters.get("service") };
  return fetchToken(options, access, realm, credentials);
}

function isDenied(error: unknown): boolean {
  return error instanceof NixcacheError && error.code === "denied";
}

function basic(
  options: AuthenticatorOptions,
  access: Access,
  challenges: readonly Challenge[],
  credentials: Credentials | undefined,
): Token {
  const { reference } = options;
  if (!challenges.some((challenge) => challenge.scheme === "basic")) {
    const schemes =
      challenges.map((challenge) => challenge.scheme).join(", ") || "no WWW-Authenticate header";
    throw new NixcacheError(
      "protocol",
      `sign in to ${reference.host}: it answered 401 with ${sanitize(schemes)}, expected a Bearer or Basic challenge`,
    );
  }
  if (credentials === undefined) {
    throw deniedError({ reference, access, hasCredentials: false, status: 401, detail: "", at: "registry" });
  }
  if (credentials.kind !== "password") {
    throw new NixcacheError(
      "denied",
      `sign in to ${reference.host}: a token was found, and the registry wants a user name and a password`,
      { hint: `Run docker login ${reference.host} with a password.` },
    );
  }
  return { header: basicHeader(credentials), until: Number.POSITIVE_INFINITY };
}

function realmOf(reference: RegistryReference, bearer: Challenge): URL {
  const text = bearer.parameters.get("realm") ?? "";
  const realm = URL.canParse(text) ? new URL(text) : undefined;
  const plainAllowed = reference.scheme === "http" || isLoopback(reference.host);
  if (realm === undefined || (realm.protocol !== "https:" && !(realm.protocol === "http:" && plainAllowed))) {
    throw new NixcacheError(
      "protocol",
      `sign in to ${reference.host}: its token realm is ${JSON.stringify(sanitize(text))}, expected an https:// URL`,
      { hint: "Credentials are not sent over plain HTTP. Check the registry's configuration." },
    );
  }
  return realm;
}

/** As docker does, any realm gets them over HTTPS; over plain HTTP none but the host that the person has named so. */
function refusePlainStranger(reference: RegistryReference, realm: URL): void {
  const { hostname } = registryOrigin(reference);
  const isNamed = realm.hostname === hostname || (isLoopback(realm.host) && isLoopback(reference.host));
  if (realm.protocol === "https:" || isNamed) return;
  throw new NixcacheError(
    "protocol",
    `sign in to ${reference.host}: its token realm is ${JSON.stringify(sanitize(realm.origin))}, expected one over HTTPS or at ${hostname}`,
    { hint: "Credentials are not sent over plain HTTP. Check the registry's configuration." },
  );
}
