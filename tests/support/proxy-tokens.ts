/**
 * Tokens as GHCR gives them: opaque, for a scope, ended without notice.
 * https://distribution.github.io/distribution/spec/auth/token/
 */
import type { LoggedRequest } from "./fault-proxy.ts";
import { emptyAnswer, type OutgoingAnswer, refusal } from "./proxy-answer.ts";

export interface TokenOptions {
  /** Who may push, and read what is private. */
  readonly user: { readonly name: string; readonly password: string };
  /** Whether anybody may read. Default: yes. */
  readonly isPublic?: boolean;
  /** Whether the user may push; else a token with that scope is refused. Default: yes. */
  readonly mayPush?: boolean;
  /** Seconds in `expires_in`; GHCR states none. The token is good for that long by this machine's clock. */
  readonly expiresIn?: number;
  /** A token ends without notice after so many requests. Default: never. */
  readonly uses?: number;
}

interface Given {
  readonly actions: readonly string[];
  readonly until: number;
  uses: number;
}

/** More than a client has under way at once: a new token that is refused at once would be a refusal. */
const YOUNG_USES = 20;

const SERVICE = "ghcr.test";

export class Tokens {
  readonly #options: TokenOptions;
  readonly #given = new Map<string, Given>();

  constructor(options: TokenOptions) {
    this.#options = options;
  }

  expireAll(): void {
    this.#given.clear();
  }

  /** Ends one token, unless it is so young that who has just got it may still be on its way with it. */
  expire(authorization: string | null): void {
    const token = authorization?.replace(/^Bearer /, "") ?? "";
    if ((this.#given.get(token)?.uses ?? 0) >= YOUNG_USES) this.#given.delete(token);
  }

  /** The token endpoint. */
  give({ authorization, query }: LoggedRequest): OutgoingAnswer {
    const { user, isPublic = true, mayPush = true, expiresIn } = this.#options;
    const parameters = new URLSearchParams(query);
    const [, actionList = ""] = /^repository:[^:]+:(.+)$/.exec(parameters.get("scope") ?? "") ?? [];
    if (parameters.get("service") !== SERVICE || actionList === "") return refusal("manifest-invalid");
    const actions = actionList.split(",");
    const known = authorization === `Basic ${btoa(`${user.name}:${user.password}`)}`;
    if (authorization !== null && !known) return refusal("denied");
    const writes = actions.some((action) => action !== "pull");
    if (!known && (writes || !isPublic)) return refusal("unauthorized");
    if (writes && !mayPush) return refusal("denied");
    const token = `opaque_${crypto.randomUUID()}`;
    const until = expiresIn === undefined ? Number.POSITIVE_INFINITY : Date.now() + expiresIn * 1000;
    this.#given.set(token, { actions, until, uses: 0 });
    const body = new Blob([
      JSON.stringify({ token, ...(expiresIn === undefined ? {} : { expires_in: expiresIn }) }),
    ]);
    return {
      ...emptyAnswer(200, {}),
      headers: new Headers({ "content-length": String(body.size) }),
      body: body.stream(),
    };
  }

  /** What becomes of a request without the right token; undefined when it may pass. */
  check(request: LoggedRequest, origin: string): OutgoingAnswer | undefined {
    const bearer = /^Bearer (.+)$/.exec(request.authorization ?? "")?.[1] ?? "";
    const given = this.#given.get(bearer);
    if (
      given === undefined ||
      given.until < Date.now() ||
      given.uses >= (this.#options.uses ?? Number.POSITIVE_INFINITY)
    ) {
      // The scope is a placeholder, as GHCR's is.
      const challenge = `Bearer realm="${origin}/token",service="${SERVICE}",scope="repository:user/image:pull"`;
      return refusal("unauthorized", { "www-authenticate": challenge });
    }
    given.uses++;
    const action = { GET: "pull", HEAD: "pull", DELETE: "delete" }[request.method] ?? "push";
    return given.actions.includes(action) ? undefined : refusal("denied");
  }
}
