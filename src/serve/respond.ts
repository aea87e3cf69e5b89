/** Complete answers. */

export const TEXT = { "content-type": "text/plain; charset=utf-8" };

/** A text, or for HEAD its head. */
export function text(
  method: string,
  status: number,
  body: string,
  headers: Record<string, string> = TEXT,
): Response {
  if (method !== "HEAD") return new Response(body, { status, headers });
  return new Response(null, {
    status,
    headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
  });
}
