/** What the publishes of one run share, so that none repeats what another one did and the last one tells of all. */
import type { Digest } from "../oci/digest.ts";
import type { NarFile } from "./upload.ts";

export interface NewPath {
  readonly path: string;
  /** Bytes of its NAR, and of that compressed; null in a dry run. */
  readonly narSize: number;
  readonly fileSize: number | null;
}

export class RunMemory {
  /** What is uploaded and in no generation yet, by NAR hash. */
  readonly files = new Map<string, NarFile>();
  /** What a generation of this run has brought into the cache, by store path. */
  readonly committed = new Map<string, NewPath>();
  /** Sizes of blobs that were sent. */
  readonly sent = new Map<Digest, number>();
}
