/**
 * Writing through the server, as the handler sees it (`nix copy --to`). Who accepts uploads is a source as well: what
 * a client was told is stored is answered at once.
 */
import type { Route } from "./route.ts";
import type { Source } from "./source.ts";

/** Uploads that are not committed yet, as `/_status` shows them. */
export interface WriterStatus {
  readonly pending_paths: number;
  readonly pending_bytes: number;
  /** ISO 8601. */
  readonly last_commit: string | null;
  readonly last_error: string | null;
}

export interface Writer extends Source {
  /** Answers a PUT. Never a 5xx, a 429, 202 or 307: these break or stall uploads of Nix up to 2.27. */
  put(found: Route, request: Request): Promise<Response>;
  /** Whether a client need not send this NAR: it is here for as long as what the client sends next needs it. */
  keepsNar(file: string): boolean;
}
