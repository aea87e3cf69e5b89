/** Answers of the fault proxy: refusals in the registry's form, and bodies that go wrong on their way. */
import { ANSWERS, type AnswerName, type Fault } from "./fault-plan.ts";
import type { LoggedRequest } from "./fault-proxy.ts";
import type { WireAnswer } from "./wire.ts";

export interface OutgoingAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: ReadableStream<Uint8Array> | null;
}

const REFUSALS = {
  ...ANSWERS,
  unauthorized: { status: 401, code: "UNAUTHORIZED", message: "authentication required" },
  denied: { status: 403, code: "DENIED", message: "permission_denied: write_package" },
  unsupported: { status: 405, code: "UNSUPPORTED", message: "The operation is unsupported." },
  "manifest-unknown": { status: 404, code: "MANIFEST_UNKNOWN", message: "manifest unknown" },
  "manifest-invalid": { status: 400, code: "MANIFEST_INVALID", message: "manifest invalid" },
} as const;

export function refusal(name: keyof typeof REFUSALS, headers: Record<string, string> = {}): OutgoingAnswer {
  const { status, code, message } = REFUSALS[name];
  const own = name in ANSWERS ? ANSWERS[name as AnswerName] : undefined;
  const given = own !== undefined && "headers" in own ? own.headers : {};
  // A gateway before the registry knows nothing of its form.
  const [type, text] =
    code === ""
      ? ["text/html", message]
      : ["application/json", JSON.stringify({ errors: [{ code, message }] })];
  const bytes = new TextEncoder().encode(text);
  return {
    status,
    headers: new Headers({
      ...given,
      ...headers,
      "content-type": type,
      "content-length": String(bytes.length),
    }),
    body: new Blob([bytes]).stream(),
  };
}

export function emptyAnswer(status: number, headers: Record<string, string>): OutgoingAnswer {
  return { status, headers: new Headers({ ...headers, "content-length": "0" }), body: null };
}

export function sendAnswer(request: LoggedRequest, answer: OutgoingAnswer, wire: WireAnswer): Promise<void> {
  return send(request, answer, wire, undefined);
}

/** As `sendAnswer`, with what befalls the body; a fault that is none of a body changes nothing. */
export async function sendFaulty(
  request: LoggedRequest,
  answer: OutgoingAnswer,
  wire: WireAnswer,
  fault: Fault,
): Promise<void> {
  return send(request, answer, wire, fault);
}

async function send(
  request: LoggedRequest,
  answer: OutgoingAnswer,
  wire: WireAnswer,
  fault: Fault | undefined,
): Promise<void> {
  const { status, headers } = answer;
  const bodiless = request.method === "HEAD" || status === 204 || status === 304 || answer.body === null;
  const clean = fault?.kind === "truncate" && fault.clean;
  const chunked = !bodiless && (clean || !headers.has("content-length"));
  const lines = [...headers]
    .filter(
      ([name]) => !(chunked && name === "content-length") && !/^(connection|transfer-encoding)$/.test(name),
    )
    .map(([name, value]) => `${name}: ${value}\r\n`);
  const framing = chunked
    ? "transfer-encoding: chunked\r\n"
    : bodiless && !headers.has("content-length")
      ? "content-length: 0\r\n"
      : "";
  await wire.write(`HTTP/1.1 ${status} Status\r\n${lines.join("")}${framing}\r\n`);
  if (bodiless || answer.body === null) {
    await answer.body?.cancel();
    return;
  }
  const stop = fault !== undefined && "after" in fault ? fault.after : Number.POSITIVE_INFINITY;
  for await (const chunk of answer.body) {
    const piece = chunk.subarray(0, Math.max(0, stop - request.sent));
    if (piece.length > 0) {
      const bytes = fault?.kind === "flip" ? flipped(piece, fault.at - request.sent) : piece;
      request.sent += piece.length;
      if (chunked) await wire.write(`${piece.length.toString(16)}\r\n`);
      await wire.write(bytes);
      if (chunked) await wire.write("\r\n");
    }
    if (piece.length < chunk.length) break;
  }
  if (request.sent < stop) {
    // The whole body has left: too short for the fault to befall it.
    if (chunked) await wire.write("0\r\n\r\n");
    return;
  }
  switch (fault?.kind) {
    case "reset-answer":
      return wire.reset();
    case "stall":
      return wire.closed;
    case "truncate":
      if (chunked && clean) await wire.write("0\r\n\r\n");
      return wire.end();
  }
}

/** One bit of the byte at this place is another; a place beyond the bytes changes nothing. */
function flipped(bytes: Uint8Array, at: number): Uint8Array {
  if (at < 0 || at >= bytes.length) return bytes;
  const copy = Uint8Array.from(bytes);
  copy[at] = (copy[at] ?? 0) ^ (1 << (at % 8));
  return copy;
}
