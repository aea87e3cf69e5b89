/** A copy of an ASCII text: a piece that was cut out of a line would keep the whole line in memory. */
export function compact(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}
