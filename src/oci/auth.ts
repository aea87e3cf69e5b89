/**
 * Authorization for one registry repository: bearer tokens from a realm, or Basic.
 * https://distribution.github.io/distribution/spec/auth/token/
 *
 * Nothing is asked for before the registry has answered 401. Tokens are cached for each kind of access;
 * GHCR's are opaque and carry no lifetime, so a 401 may come at any time and renews once. All requests that
 * wait for a token share one flight. Secrets go to the registry's own origin and to its realm, nowhere else.
 */
import { createFetch, type FetchOptions } from "ofetch";
import { NixcacheError } from "../errors.ts";
import { ACTIONS, type Access } from "./access.ts";
import { readBounded, sanitize } from "./body.ts";
import { type Challenge, parseChallenges } from "./challenge.ts";
import type { Credentials } from "./credentials.ts";
import { deniedError } from "./denied.ts";
import { RAW_EXCHANGE } from "./hop.ts";
import { type Network, onAbort, throwIfAborted } from "./network.ts";
import { isLoopback, type RegistryReference } from "./reference.ts";
import { classify, networkFailure, type RetryPolicy, TransientFailure } from "./retry.ts";

/** Where a registry states none. https://distribution.github.io/distribution/spec/auth/token/#token-response-fields */
const DEFAULT_LIFETIME_S = 60;
const MAX_TOKEN_ANSWER_BYTES = 1024 * 1024;

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

export interface AuthenticatorOptions {
  readonly reference: RegistryReference;
  /** Asked once, when the registry first wants something. */
  readonly credentials: () => Promise<Credentials | undefined>;
  readonly policy: RetryPolicy;
  readonly network: Network;
  readonly userAgent: string;
  /** The repository that blobs are mounted from. */
  readonly mountFrom?: string | undefined;
}

interface Cached {
  readonly header: string;
  /** Milliseconds since 1970. */
  readonly until: number;
}

export function createAuthenticator(options: AuthenticatorOptions): Authenticator {
  const { reference, network } = options;
  const cache = new Map<Access, Cached>();
  const flights = new Map<Access, Promise<string>>();
  let credentials: Promise<Credentials | undefined> | undefined;
  let found: boolean | undefined;
  /** The `WWW-Authenticate` that last led to a token. */
  let challenge: string | null | undefined;

  const lookUp = async (): Promise<Credentials | undefined> => {
    credentials ??= options.credentials();
    try {
      const result = await credentials;
      found = result !== undefined;
      return result;
    } catch (error) {
      credentials = undefined;
      throw error;
    }
  };

  const current = (access: Access): string | undefined => {
    const cached = cache.get(access);
    return cached !== undefined && network.now() < cached.until ? cached.header : undefined;
  };

  const obtain = async (access: Access, header: string | null): Promise<string> => {
    const challenges = parseChallenges(header);
    const bearer = challenges.find((challenge) => challenge.scheme === "bearer");
    const cached =
      bearer !== undefined
        ? await fetchToken(options, access, realmOf(reference, bearer), bearer, await lookUp())
        : basic(options, access, challenges, await lookUp());
    cache.set(access, cached);
    challenge = header;
    return cached.header;
  };

  const renew: Authenticator["renew"] = async (access, used, header) => {
    const now = current(access);
    if (now !== undefined && now !== used) return now;
    let flight = flights.get(access);
    if (flight === undefined) {
      cache.delete(access);
      flight = obtain(access, header).finally(() => flights.delete(access));
      flights.set(access, flight);
    }
    return flight;
  };

  return {
    renew,
    ready: async (access) =>
      current(access) ?? (challenge === undefined ? undefined : renew(access, undefined, challenge)),
    hasCredentials: () => found,
  };
}

function basic(
  options: AuthenticatorOptions,
  access: Access,
  challenges: readonly Challenge[],
  credentials: Credentials | undefined,
): Cached {
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

/**
 * A token, with credentials where there are some. Reading falls back to an anonymous token when they are
 * refused: GHCR answers 403 to an expired personal token even for public packages.
 */
async function fetchToken(
  options: AuthenticatorOptions,
  access: Access,
  realm: URL,
  bearer: Challenge,
  credentials: Credentials | undefined,
): Promise<Cached> {
  const url = new URL(realm);
  const service = bearer.parameters.get("service");
  if (service !== undefined) url.searchParams.set("service", service);
  url.searchParams.set("scope", `repository:${options.reference.repository}:${ACTIONS[access]}`);
  if (access === "mount") url.searchParams.append("scope", `repository:${options.mountFrom}:${ACTIONS.pull}`);
  try {
    return await requestToken(options, access, url, credentials);
  } catch (error) {
    const mayBeAnonymous = credentials !== undefined && access === "pull";
    if (!mayBeAnonymous || !(error instanceof NixcacheError) || error.code !== "denied") throw error;
    try {
      return await requestToken(options, access, url, undefined);
    } catch (second) {
      // The first refusal says more: it is about the credentials that the person has set.
      throw second instanceof NixcacheError && second.code === "denied" ? error : second;
    }
  }
}

async function requestToken(
  options: AuthenticatorOptions,
  access: Access,
  url: URL,
  credentials: Credentials | undefined,
): Promise<Cached> {
  const { reference, network, policy } = options;
  const what = `GET ${url.host}${url.pathname} (token for ${reference.host}/${reference.repository})`;
  throwIfAborted(network.signal);
  const controller = new AbortController();
  let late = false;
  const stopTimer = network.timer(policy.connectTimeoutMs, () => {
    late = true;
    controller.abort();
  });
  const stopListening = onAbort([network.signal], (signal) => controller.abort(signal.reason));
  try {
    const init: FetchOptions<"stream"> & { decompress: boolean } = {
      ...RAW_EXCHANGE,
      signal: controller.signal,
      headers: {
        "user-agent": options.userAgent,
        accept: "application/json",
        "accept-encoding": "identity",
        ...(credentials === undefined ? {} : { authorization: basicHeader(credentials) }),
      },
    };
    const answer = await createFetch({ fetch: network.fetch as typeof fetch }).raw(url.href, init);
    const body = new TextDecoder().decode(await readBounded(answer.body, MAX_TOKEN_ANSWER_BYTES, what));
    return readToken(options, access, what, answer.status, answer.headers, body, credentials !== undefined);
  } catch (error) {
    if (error instanceof NixcacheError || error instanceof TransientFailure) throw error;
    throwIfAborted(network.signal);
    throw networkFailure(
      what,
      late ? new Error(`no answer within ${policy.connectTimeoutMs / 1000} s`) : error,
    );
  } finally {
    stopTimer();
    stopListening();
  }
}

function readToken(
  options: AuthenticatorOptions,
  access: Access,
  what: string,
  status: number,
  headers: Headers,
  body: string,
  hasCredentials: boolean,
): Cached {
  const { reference, network } = options;
  const verdict = classify(status, headers, body, network.now(), options.policy.secondaryLimitMs);
  if (verdict.kind === "retry") {
    const failure = new NixcacheError("unreachable", `${what}: got ${status} ${sanitize(body)}`.trimEnd());
    throw new TransientFailure(failure, verdict.afterMs);
  }
  // GHCR answers 404 here to nobody, but a realm that hides packages may: that is a refusal, not absence.
  if (verdict.kind === "denied" || verdict.kind === "absent") {
    throw deniedError({ reference, access, hasCredentials, status, detail: body, at: "token" });
  }
  const { token, lifetimeS } = status < 300 ? tokenOf(body) : { token: undefined, lifetimeS: 0 };
  if (token === undefined) {
    throw new NixcacheError(
      "protocol",
      `${what}: got ${status} without a token, expected 200 and {"token": …}`,
    );
  }
  // Ahead of the end, as the request that carries the token takes its time; at most 10 s.
  const margin = Math.min(10, lifetimeS / 4);
  return { header: `Bearer ${token}`, until: network.now() + (lifetimeS - margin) * 1000 };
}

function tokenOf(body: string): { token: string | undefined; lifetimeS: number } {
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch {
    json = undefined;
  }
  const fields = (typeof json === "object" && json !== null ? json : {}) as Record<string, unknown>;
  const token = [fields.token, fields.access_token].find(
    (value) => typeof value === "string" && value !== "",
  );
  const stated = fields.expires_in;
  return {
    // A token goes into a header: nothing but visible ASCII.
    token: typeof token === "string" && /^[\x21-\x7e]+$/.test(token) ? token : undefined,
    lifetimeS:
      typeof stated === "number" && Number.isFinite(stated) && stated > 0 ? stated : DEFAULT_LIFETIME_S,
  };
}

function basicHeader({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}
