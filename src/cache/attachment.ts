/**
 * What is served beside an entry's narinfo and NAR under a path of its own: the build log of its derivation
 * (`log/<derivation>.drv`), and the realisations of a content-addressed output (`realisations/<id>.doi`,
 * `build-trace-v2/…`). https://nix.dev/manual/nix/latest/protocols/binary-cache
 *
 *     "attached":{"log/….drv":{"part":[…]},"realisations/sha256:…!out.doi":{"text":"{…}"}}
 *
 * A few hundred bytes stand in the line itself; what is larger is a part, which holds the zstd of the content.
 */
import { NixcacheError, preview } from "../errors.ts";
import { asObject } from "./json.ts";
import { decodePart, encodePart, type Part } from "./part.ts";

export type Attachment = { readonly text: string } | { readonly part: Part };

/** By the path under which they are served. */
export type Attachments = Readonly<Record<string, Attachment>>;

/** Of one entry. A path that many derivations come to has a realisation for each; the log is one more. */
export const MAX_ATTACHMENTS = 32;

/** Bytes of UTF-8. With all that an entry may have, a line stays well below its bound. */
export const MAX_TEXT_BYTES = 64 * 1024;

/** One or two components below a known folder, of what derivation names, output names and hashes are made of. */
const PATH = /^(?:log|realisations|build-trace-v2|debuginfo)(?:\/[A-Za-z0-9][A-Za-z0-9._+?=!:-]*){1,2}$/;

/** Characters. The longest are a folder, a store path's base name and an output's name. */
const MAX_PATH_LENGTH = 512;

export function isAttachedPath(path: string): boolean {
  return path.length <= MAX_PATH_LENGTH && PATH.test(path);
}

export function encodeAttachments(attachments: Attachments): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(attachments).map(([path, attachment]) => [
      path,
      "text" in attachment ? { text: attachment.text } : { part: encodePart(attachment.part) },
    ]),
  );
}

/** @throws `corrupt`, naming `where`. */
export function decodeAttachments(value: unknown, where: string): Attachments {
  const entries = Object.entries(asObject(value, `${where}, "attached"`));
  if (entries.length === 0 || entries.length > MAX_ATTACHMENTS) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got ${entries.length} attached files, expected 1 to ${MAX_ATTACHMENTS}`,
    );
  }
  return Object.fromEntries(entries.map(([path, item]) => [path, decodeAttachment(path, item, where)]));
}

function decodeAttachment(path: string, value: unknown, where: string): Attachment {
  if (!isAttachedPath(path)) {
    throw new NixcacheError(
      "corrupt",
      `${where}: got the attached file ${preview(path, 200)}, expected a path such as log/<derivation>.drv`,
    );
  }
  const file = `${where}, attached file ${path}`;
  const { text, part } = asObject(value, file);
  if (text === undefined && part !== undefined) return { part: decodePart(part, file) };
  if (typeof text !== "string" || part !== undefined) {
    throw new NixcacheError("corrupt", `${file}: got ${preview(value, 200)}, expected a "text" or a "part"`);
  }
  const size = Buffer.byteLength(text);
  if (size <= MAX_TEXT_BYTES) return { text };
  throw new NixcacheError(
    "corrupt",
    `${file}: got a text of ${size} bytes, expected at most ${MAX_TEXT_BYTES}`,
  );
}
