/** Which paths a generation holds, read from its own segment. */
import { readSizes } from "../cache/catalog.ts";
import type { PublishRecord } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { generationGone, readSegment } from "../protocol/segment.ts";
import { compact } from "./compact.ts";

export interface HeldPath {
  /** The store hash. */
  readonly hash: string;
  readonly name: string;
  readonly narSize: number;
  /** Bytes of the compressed NAR; null where the narinfo does not say. */
  readonly fileSize: number | null;
  /** Names the compressed NAR: paths with the same content share it. */
  readonly file: string;
}

/**
 * Calls `take` for each path; what it gets may be kept.
 * @throws `absent` when the generation was deleted, `corrupt` when it cannot be read
 */
export async function readContents(
  context: ProtocolContext,
  name: GenerationName,
  take: (path: HeldPath) => void,
): Promise<PublishRecord> {
  const header = await readSegment(context, name, ({ storeHash, narinfo, file }) => {
    const sizes = readSizes(narinfo);
    take({ ...sizes, name: compact(sizes.name), hash: compact(storeHash), file: compact(file) });
  });
  if (header === undefined) throw generationGone(context.store, name);
  return header.record;
}

/**
 * As `readContents`, and a generation that was deleted or is damaged is a warning.
 * @param consequence how that goes on: "what it holds is not known"
 * @returns whether it was read
 */
export async function readContentsOrWarn(
  context: ProtocolContext,
  name: GenerationName,
  consequence: string,
  take: (path: HeldPath) => void,
): Promise<boolean> {
  try {
    await readContents(context, name, take);
    return true;
  } catch (error) {
    if (!(error instanceof NixcacheError && ["absent", "corrupt"].includes(error.code))) throw error;
    context.warn(`${messageOf(error)}; ${consequence}`);
    return false;
  }
}
