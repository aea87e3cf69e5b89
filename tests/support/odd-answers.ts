/** Answers that no documentation of a registry mentions, for any request. */
import type { SeenRequest } from "./registry-double.ts";

const PAGE = "<!DOCTYPE html><title>Welcome</title>";
const page = (status: number) => () =>
  new Response(PAGE, { status, headers: { "content-type": "text/html" } });
const empty = (status: number, headers: Record<string, string> = {}) => {
  return () => new Response(null, { status, headers });
};
const json = (body: string, status = 200, headers: Record<string, string> = {}) => {
  return () => new Response(body, { status, headers: { "content-type": "application/json", ...headers } });
};
const errors = (code: string) => JSON.stringify({ errors: [{ code, message: "no" }] });
const OTHER_DIGEST = `sha256:${"0".repeat(64)}`;

export type OddAnswer = (seen: SeenRequest) => Response;

/** A body that ends in the middle, and the connection with it. */
function cut(): Response {
  let begun = false;
  const body = new ReadableStream({
    pull(controller) {
      if (begun) return controller.close();
      begun = true;
      controller.enqueue(new TextEncoder().encode('{"schema'));
    },
  });
  return new Response(body, { headers: { "content-type": "application/json", "content-length": "9999" } });
}

/** The network's, and limits of requests: the other way would meet them as well. They end in an error, soon. */
export const NETWORK_OR_LIMIT: ReadonlySet<string> = new Set([
  "200 that breaks off",
  "302 to a host where nobody is",
  "429 for ever",
]);

/** None of them says that something is absent, or is there. */
export const ODD_ANSWERS: readonly (readonly [string, OddAnswer])[] = [
  ["200 and a page", page(200)],
  ["200 and nothing", empty(200)],
  ["200 and null", json("null")],
  ["200 and an object", json("{}")],
  ["200 and half of an object", json('{"schemaVersion": 2, "lay')],
  ["200 that breaks off", cut],
  ["200 and gzip", json("{}", 200, { "content-encoding": "gzip" })],
  ["200 and another digest", json("{}", 200, { "docker-content-digest": OTHER_DIGEST })],
  ["202 without a location", empty(202)],
  ["204", empty(204)],
  ["206 and another range", json("xxxxxxxxxx", 206, { "content-range": "bytes 3-12/9999" })],
  ["301 to itself", ({ path }) => new Response(null, { status: 301, headers: { location: path } })],
  ["302 to a host where nobody is", empty(302, { location: "http://127.0.0.1:1/nowhere" })],
  ["302 to what is no address", empty(302, { location: "http://[" })],
  ["304", empty(304)],
  ["400 without a body", empty(400)],
  ["401 without a challenge", empty(401)],
  ["403 DENIED", json(errors("DENIED"), 403)],
  ["403 and a page", page(403)],
  ["405", empty(405)],
  ["409", json(errors("CONFLICT"), 409)],
  ["413", page(413)],
  ["415", empty(415)],
  ["416", empty(416)],
  ["418", () => new Response("short and stout", { status: 418 })],
  ["422 and text", () => new Response("unprocessable", { status: 422 })],
  ["429 for ever", empty(429)],
  ["451", page(451)],
  ["500", empty(500)],
  ["501", empty(501)],
  ["502 and a page", page(502)],
  ["503, again at once", empty(503, { "retry-after": "0" })],
  ["503, again in a year", empty(503, { "retry-after": "31536000" })],
  ["505", empty(505)],
];
