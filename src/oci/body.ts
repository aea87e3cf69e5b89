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

/**
 * What the body of a failure says, for one line of a terminal. Proxies and portals answer with pages: of those only
 * the title counts, and of storage hosts' XML the code and the message.
 */
export function wordsIn(text: string): string {
  if (!/^\s*</.test(text)) return sanitize(text);
  const title = element(text, "title");
  if (/^\s*<(?:!doctype\s+html|html|head|body|title|meta|center|div|p|h[1-6])\b/i.test(text) || title !== "")
    return title === "" ? "a web page" : sanitize(`a web page: "${title}"`);
  return sanitize([element(text, "Code"), element(text, "Message")].filter(Boolean).join(" "));
}

/** The text of the first element of that name, at most 100 characters; empty where it has markup itself. */
function element(text: string, name: string): string {
  const found = new RegExp(`<${name}(?:\\s[^<>]{0,200})?>([^<>]{0,100})</${name}>`, "i").exec(text)?.[1];
  return found?.trim() ?? "";
}

/** Text of a stranger for one line of a terminal: no control characters, at most 300 characters. */
export function sanitize(text: string): string {
  const line = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, " ").trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
}
