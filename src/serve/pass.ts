/** The answer of an upstream, on its way to the client. */
import type { Exchange } from "./exchange.ts";
import { sandboxed } from "./respond.ts";

/** Harmless in a browser, and counted. */
export function passed(response: Response, request: Request, exchange: Exchange): Response {
  const { status, headers } = sandboxed(response);
  if (!response.ok) return response;
  exchange.source = "upstream";
  if (request.method === "HEAD" || response.body === null) return response;
  return new Response(exchange.stream(response.body), { status, headers });
}
