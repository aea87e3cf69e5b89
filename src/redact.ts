/**
 * Takes passwords and tokens out of URLs, wherever one stands in a text: in a flake's reference, a remote of git, an
 * upstream, what Nix or git says went wrong. A secret is taken out once, before the text becomes a name, a record or a
 * message.
 */

/** `scheme://user:password@`, up to the first slash. https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1 */
const USER = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s/?#"'`<>]+@/gi;

/** A parameter whose name says that its value is a secret. */
const SECRET_PARAMETER =
  /([?&;](?:[\w.-]*(?:token|secret|password|passwd|signature|credential|api[_-]?key)[\w.-]*|sig|key|auth|pw|pass)=)[^\s&;#"'`<>]+/gi;

/** The text with `…` in the place of what would let somebody in. Twice is the same as once. */
export function redactUrls(text: string): string {
  if (!text.includes("://")) return text;
  return text.replace(USER, "$1…@").replace(SECRET_PARAMETER, "$1…");
}
