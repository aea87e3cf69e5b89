/** One line for each request: who asked for what, what they got, how long it took and where it came from. */
import { printable } from "../errors.ts";
import type { Exchange } from "./exchange.ts";

/** Longer paths are shortened: clients choose them. */
const MAX_PATH_LENGTH = 300;

/**
 * Without the query, which may hold a secret.
 * @param client its address
 * @param ms from the request to the end of the answer
 */
export function accessLine(
  { method, url }: Pick<Request, "method" | "url">,
  { status, bytes, source, isCut }: Exchange,
  client: string | undefined,
  ms: number,
): string {
  const path = printable(pathOf(url).slice(0, MAX_PATH_LENGTH));
  const end = isCut ? " cut" : "";
  return `${client ?? "-"} ${method} ${path} ${status} ${bytes} B ${ms.toFixed(1)} ms ${source}${end}`;
}

function pathOf(url: string): string {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  return url.slice(start).split("?", 1)[0] ?? "";
}
