/** By which keys a cache is signed, as its publishers say. */
import type { Generation } from "../cache/index-layer.ts";
import { lineOf, type PublishRecord } from "../cache/record.ts";
import { type PublicKey, parsePublicKey } from "../nar/signing-key.ts";
import { usableKeys } from "../serve/page/client-lines.ts";

export interface FoundKey {
  /** `name:base64`, and nothing that would mean more in a file of settings. */
  readonly text: string;
  readonly key: PublicKey;
  /** The newest publish that it has signed. */
  readonly from: PublishRecord;
}

export interface FoundKeys {
  /** The newest first. */
  readonly keys: readonly FoundKey[];
  /** How many sources the cache has: repositories and branches, by system and outputs. */
  readonly sources: number;
  /** How many of them were published without a key the last time. */
  readonly unsigned: number;
}

/**
 * The keys of the newest generation of each source: older ones of a source say by which key it was signed once.
 * @param generations the oldest first
 */
export function findKeys(generations: readonly Generation[]): FoundKeys {
  const newest = new Map<string, PublishRecord>();
  for (const { record } of generations) newest.set(lineOf(record), record);
  const records = [...newest.values()].sort((a, b) => (a.time < b.time ? 1 : a.time > b.time ? -1 : 0));
  const keys = new Map<string, FoundKey>();
  for (const from of records) {
    for (const text of usableKeys(from.keys)) {
      const key = keyIn(text);
      if (key !== undefined && !keys.has(text)) keys.set(text, { text, key, from });
    }
  }
  return {
    keys: [...keys.values()],
    sources: records.length,
    unsigned: records.filter((record) => record.keys.length === 0).length,
  };
}

/** What a publisher states may be no key; nothing is signed by it then. */
function keyIn(text: string): PublicKey | undefined {
  try {
    return parsePublicKey(text);
  } catch {
    return undefined;
  }
}
