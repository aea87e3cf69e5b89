/** Bodies of answers: read with a bound, and made fit for an error message. */
import { NixcacheError } from "../errors.ts";

/**
 * All bytes of a body.
 * @throws `protocol` as soon as there are more than `limit`; whatever the stream throws.
 */
export async function readBounded(
  body: ReadableStream<Uint8Array> | null | undefined,
  limit: number,
  what: string,
): Promise<Uint8Array> {
  if (!body) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > limit) {
      // Nobody waits for the rest, and what becomes of the connection changes nothing here.
      reader.cancel().catch(() => {});
      throw new NixcacheError("protocol", `${what}: got more than ${limit} bytes, expected fewer`);
    }
    chunks.push(value);
  }
  return chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks, size);
}

/** Text of a stranger for one line of a terminal: no control characters, at most 300 characters. */
export function sanitize(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, " ").trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
}
