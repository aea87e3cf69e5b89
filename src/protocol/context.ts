/** What the steps of the storage protocol work on: the store, the local index, and the world around them. */
import type { IndexDatabase } from "../cache/database.ts";
import type { Host } from "../host.ts";
import type { Spool } from "../oci/spool.ts";
import type { Store } from "../oci/store.ts";
import type { Trust } from "./signed.ts";

export interface ProtocolContext {
  readonly store: Store;
  readonly database: IndexDatabase;
  readonly spool: Spool;
  readonly host: Host;
  readonly signal?: AbortSignal | undefined;
  /** Requests of one kind that a step has under way at once. */
  readonly concurrency: number;
  /** Whose generations count, and who signs those that are written. Default: everything counts, and nobody signs. */
  readonly trust?: Trust | undefined;
  /** Told what a person should know but what stops nothing. */
  readonly warn: (message: string) => void;
  /** Told what happens once and may take long. Default: nobody is. */
  readonly info?: (message: string) => void;
}
