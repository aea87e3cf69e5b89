/**
 * Access tokens from a registry's realm: by GET, with a user name and a password where there are some, or by POST
 * with an identity token (OAuth 2.0, which Azure's registry uses).
 * https://distribution.github.io/distribution/spec/auth/token/
 * https://distribution.github.io/distribution/spec/auth/oauth/
 */
import { createFetch, type FetchOptions } from "ofetch";
import { NixcacheError } from "../errors.ts";
import { outward } from "../network/egress.ts";
import { ACTIONS, type Access } from "./access.ts";
import { readBounded, wordsIn } from "./body.ts";
import type { Credentials } from "./credentials.ts";
import { deniedError } from "./denied.ts";
import { RAW_EXCHANGE } from "./hop.ts";
import { type Network, onAbort, throwIfAborted } from "./network.ts";
import { type RegistryReference, registryOrigin } from "./reference.ts";
import { AnsweredWith, classify, Late, networkFailure, type RetryPolicy, TransientFailure } from "./retry.ts";

/** Where a registry states none. https://distribution.github.io/distribution/spec/auth/token/#token-response-fields */
const DEFAULT_LIFETIME_S = 60;
const MAX_TOKEN_ANSWER_BYTES = 1024 * 1024;

/** Who we are, in OAuth's terms. */
const CLIENT_ID = "nixcache";

export interface Token {
  /** The Authorization header. */
  readonly header: string;
  /** Milliseconds since 1970. */
  readonly until: number;
}

export interface TokenRealm {
  readonly url: URL;
  readonly service: string | undefined;
}

export type TokenCredentials = Exclude<Credentials, { kind: "registry-token" }>;

export interface TokenOptions {
  readonly reference: RegistryReference;
  readonly policy: RetryPolicy;
  readonly network: Network;
  readonly userAgent: string;
  /** The repository that blobs are mounted from. */
  readonly mountFrom?: string | undefined;
}

/**
 * A token, with credentials where there are some. Reading falls back to an anonymous token when they are
 * refused: GHCR answers 403 to an expired personal token even for public packages.
 */
export async function fetchToken(
  options: TokenOptions,
  access: Access,
  realm: TokenRealm,
  credentials: TokenCredentials | undefined,
): Promise<Token> {
  try {
    return await requestToken(options, access, realm, credentials);
  } catch (error) {
    const mayBeAnonymous = credentials !== undefined && access === "pull";
    if (!mayBeAnonymous || !(error instanceof NixcacheError) || error.code !== "denied") throw error;
    try {
      return await requestToken(options, access, realm, undefined);
    } catch (second) {
      // The first refusal says more: it is about the credentials that the person has set.
      throw second instanceof NixcacheError && second.code === "denied" ? error : second;
    }
  }
}

interface TokenRequest {
  readonly method: "GET" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

function tokenRequest(
  { reference, mountFrom }: TokenOptions,
  access: Access,
  { url: realm, service }: TokenRealm,
  credentials: TokenCredentials | undefined,
): TokenRequest {
  const scopes = [`repository:${reference.repository}:${ACTIONS[access]}`];
  if (access === "mount") scopes.push(`repository:${mountFrom}:${ACTIONS.pull}`);
  if (credentials?.kind === "identity-token") {
    const form = new URLSearchParams({
      grant_type: "refresh_token",
      refresh_token: credentials.token,
      client_id: CLIENT_ID,
      service: service ?? reference.host,
      scope: scopes.join(" "),
    });
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return { method: "POST", url: realm, headers, body: form.toString() };
  }
  const url = new URL(realm);
  if (service !== undefined) url.searchParams.set("service", service);
  url.searchParams.delete("scope");
  for (const scope of scopes) url.searchParams.append("scope", scope);
  return {
    method: "GET",
    url,
    headers: credentials === undefined ? {} : { authorization: basicHeader(credentials) },
  };
}

async function requestToken(
  options: TokenOptions,
  access: Access,
  realm: TokenRealm,
  credentials: TokenCredentials | undefined,
): Promise<Token> {
  const { reference, network, policy } = options;
  const { method, url, headers, body } = tokenRequest(options, access, realm, credentials);
  const what = `${method} ${url.host}${url.pathname} (token for ${reference.host}/${reference.repository})`;
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
      method,
      signal: controller.signal,
      headers: {
        "user-agent": options.userAgent,
        accept: "application/json",
        "accept-encoding": "identity",
        ...headers,
      },
      ...(body !== undefined && { body }),
    };
    const send = outward(network, registryOrigin(reference));
    const answer = await createFetch({ fetch: send as typeof fetch }).raw(url.href, init);
    const text = new TextDecoder().decode(await readBounded(answer.body, MAX_TOKEN_ANSWER_BYTES, what));
    return readToken(options, access, what, answer.status, answer.headers, text, credentials);
  } catch (error) {
    if (error instanceof NixcacheError || error instanceof TransientFailure) throw error;
    throwIfAborted(network.signal);
    throw networkFailure(
      what,
      late ? new Late(`no answer within ${policy.connectTimeoutMs / 1000} s`) : error,
    );
  } finally {
    stopTimer();
    stopListening();
  }
}

function readToken(
  options: TokenOptions,
  access: Access,
  what: string,
  status: number,
  headers: Headers,
  body: string,
  credentials: TokenCredentials | undefined,
): Token {
  const { reference, network } = options;
  const verdict = classify(status, headers, body, network.now(), options.policy.secondaryLimitMs);
  if (verdict.kind === "retry") {
    const failure = new NixcacheError("unreachable", `${what}: got ${status} ${wordsIn(body)}`.trimEnd(), {
      cause: new AnsweredWith(status, verdict.afterMs),
    });
    throw new TransientFailure(failure, verdict.afterMs);
  }
  // GHCR answers 404 here to nobody, but a realm that hides packages may: that is a refusal, not absence.
  // One that takes no identity tokens answers 404 or 405 to a POST, and 400 to a token that has ended.
  const refusesToken = credentials?.kind === "identity-token" && (status === 400 || status === 405);
  if (verdict.kind === "denied" || verdict.kind === "absent" || refusesToken) {
    const hasCredentials = credentials !== undefined;
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

export function basicHeader({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`, "utf8").toString("base64")}`;
}
