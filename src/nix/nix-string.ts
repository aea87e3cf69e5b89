/** Texts in the Nix language. https://nix.dev/manual/nix/latest/language/string-literals */

/** The literal of a text: nothing in it is interpolated. */
export function nixString(text: string): string {
  // A carriage return that stands in a file as it is would be taken for a part of a line's end.
  return `"${text.replace(/[\\"$]/g, "\\$&").replaceAll("\r", "\\r")}"`;
}
