/**
 * Which bytes a request asks for, and whether it has them already.
 * https://www.rfc-editor.org/rfc/rfc9110#name-conditional-requests and #name-range-requests
 */
import type { ByteRange } from "../oci/store.ts";

/** Of the headers of a request. */
type Headers = { get(name: string): string | null };

/**
 * The range of a GET for something of `size` bytes: undefined where the whole is to be sent, which is also the
 * answer to several ranges at once and to what is no range; `unsatisfiable` is a 416.
 * @param etag strong, with its quotes; undefined where there is none, so that If-Range never holds
 */
export function requestedRange(
  headers: Headers,
  size: number,
  etag: string | undefined,
): ByteRange | "unsatisfiable" | undefined {
  const text = headers.get("range");
  if (text === null) return undefined;
  // A date cannot hold either: nothing here has a Last-Modified.
  const condition = headers.get("if-range");
  if (condition !== null && condition.trim() !== etag) return undefined;
  const [, first = "", last = ""] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(text) ?? [];
  if (first === "" && last === "") return undefined;
  if (first === "") {
    const length = Math.min(Number(last), size);
    return length === 0 ? "unsatisfiable" : { offset: size - length, length };
  }
  const offset = Number(first);
  if (last !== "" && Number(last) < offset) return undefined;
  if (offset >= size) return "unsatisfiable";
  const end = last === "" ? size : Math.min(Number(last) + 1, size);
  return { offset, length: end - offset };
}

/** A Content-Range: of `range`, or for a 416 of none. */
export function contentRange(range: ByteRange | undefined, size: number): string {
  return range === undefined
    ? `bytes */${size}`
    : `bytes ${range.offset}-${range.offset + range.length - 1}/${size}`;
}

/** Whether a request's If-None-Match names what it would get: the answer is 304. */
export function isNotModified(headers: Headers, etag: string | undefined): boolean {
  const text = headers.get("if-none-match");
  if (text === null) return false;
  if (text.trim() === "*") return true;
  const tags: string[] = text.match(/"[^"]*"/g) ?? [];
  return etag !== undefined && tags.includes(etag);
}

/** The bytes of `range` out of a body that begins before it. */
export function cut(
  body: ReadableStream<Uint8Array>,
  { offset, length }: ByteRange,
): ReadableStream<Uint8Array> {
  const end = offset + length;
  let at = 0;
  return body.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const piece = chunk.subarray(Math.max(0, offset - at), Math.max(0, end - at));
        at += chunk.length;
        if (piece.length > 0) controller.enqueue(piece);
        if (at >= end) controller.terminate();
      },
    }),
  );
}
