/** Complete answers. */

export const TEXT = { "content-type": "text/plain; charset=utf-8" };

/** As nginx calls it: the client is gone. Nobody sees it but the counters and the access log. */
const CLIENT_GONE = 499;

/** For a client that has hung up before its answer was there. */
export function clientGone(): Response {
  return new Response(null, { status: CLIENT_GONE });
}

/**
 * Makes what a stranger wrote harmless in a browser: a page among it is shown as one of a site of its own, without
 * scripts, and can neither read nor write here. https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Content-Security-Policy/sandbox
 */
export function sandboxed(response: Response): Response {
  response.headers.set("content-security-policy", "sandbox; default-src 'none'");
  response.headers.set("x-content-type-options", "nosniff");
  return response;
}

/** A text, or for HEAD its head. */
export function text(
  method: string,
  status: number,
  body: string,
  headers: Record<string, string> = TEXT,
): Response {
  return new Response(method === "HEAD" ? null : body, {
    status,
    headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
  });
}
