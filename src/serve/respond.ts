/** Complete answers. */

export const TEXT = { "content-type": "text/plain; charset=utf-8" };

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
