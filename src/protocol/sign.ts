/**
 * Signing generations that were published before generations were signed, or without a key. What is under a tag never
 * changes, so a generation is committed once more, signed and under a new name; it succeeds the one that it repeats.
 */
import { type EntryLine, entryOf } from "../cache/entry.ts";
import { blobsOf } from "../cache/manifests.ts";
import { lineOf, PATHS_SOURCE, PIN_PREFIX, type PublishRecord } from "../cache/record.ts";
import type { GenerationName } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError } from "../errors.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import { type PublicKey, publicKeyOf, type SecretKey } from "../nar/signing-key.ts";
import type { ProtocolContext } from "./context.ts";
import { foldOrWarn } from "./fold.ts";
import { GenerationWriter } from "./generation.ts";
import { Liveness } from "./liveness.ts";
import { refresh } from "./refresh.ts";
import { readSegment, UnsignedGeneration } from "./segment.ts";

export interface SignedGenerations {
  /** The oldest first. */
  readonly signed: readonly { readonly name: GenerationName; readonly by: GenerationName }[];
  /** Those that the key had signed before. */
  readonly already: number;
  /** Those that a newer one of the same line succeeds: nobody needs them signed. */
  readonly succeeded: number;
  /** Those that could not be signed, and why. */
  readonly left: readonly { readonly name: GenerationName; readonly reason: string }[];
}

/** Whether the reader's keys have signed nothing, and others may have published before. */
export function mayBeUnsigned({ trust, database: { view } }: ProtocolContext): boolean {
  const isSigning = trust?.keys !== undefined && trust.signer !== undefined;
  return isSigning && view.unsigned().length > 0 && view.generations().length === 0;
}

/**
 * Signs what lives and consists of paths that the given keys have signed: of each line the newest, of bare paths and
 * pins all. What somebody else has put there is so passed over, unless it repeats signed paths.
 * @throws what the store throws; what was signed until then stays
 */
export async function signGenerations(
  context: ProtocolContext,
  signer: SecretKey,
): Promise<SignedGenerations> {
  const { store, concurrency, signal } = context;
  const keys = [...(context.trust?.keys ?? []), publicKeyOf(signer)];
  const liveness = new Liveness(context, await store.listTags({ signal }), new Set());
  const left: { name: GenerationName; reason: string }[] = [];
  const found = await mapConcurrently(liveness.live().sort(), concurrency, async (name) => {
    try {
      return await examine(context, name, liveness.tagOf(name), keys);
    } catch (error) {
      if (!(error instanceof NixcacheError && error.code === "corrupt")) throw error;
      left.push({ name, reason: error.message });
      return undefined;
    }
  });
  const all = found.filter((one) => one !== undefined);
  const open = all.filter(({ isSigned }) => !isSigned);
  const needed = open.filter((one) => !isSucceeded(one, all));
  const signed: { name: GenerationName; by: GenerationName }[] = [];
  for (const { name, unsigned, paths } of needed) {
    if (unsigned > 0) {
      left.push({
        name,
        reason: `${unsigned} of its ${paths} paths are not signed by the key: publish them again`,
      });
      continue;
    }
    const by = await signOne(context, name, liveness.tagOf(name), signer);
    if (by !== undefined) signed.push({ name, by });
  }
  if (signed.length > 0) await foldOrWarn({ ...context, trust: { keys, signer } });
  return { signed, left, already: all.length - open.length, succeeded: open.length - needed.length };
}

/** Before the first signed publish into a cache that has been there for longer. */
export async function signWhatWasBefore(context: ProtocolContext): Promise<void> {
  const { signer } = context.trust ?? {};
  if (signer === undefined || !mayBeUnsigned(context)) return;
  const { signed } = await signGenerations(context, signer);
  if (signed.length === 0) return;
  context.info?.(`signed ${signed.length} generations whose paths ${signer.name} has signed before`);
  await refresh(context, { list: true });
}

interface Examined {
  readonly name: GenerationName;
  readonly record: PublishRecord;
  readonly isSigned: boolean;
  readonly paths: number;
  /** How many of them none of the keys has signed. */
  readonly unsigned: number;
}

/** Undefined for one that is gone. */
async function examine(
  context: ProtocolContext,
  name: GenerationName,
  tag: string,
  keys: readonly PublicKey[],
): Promise<Examined | undefined> {
  try {
    const header = await readSegment({ ...context, trust: { keys } }, name, () => {}, { tag });
    return header && { name, record: header.record, isSigned: true, paths: 0, unsigned: 0 };
  } catch (error) {
    if (!(error instanceof UnsignedGeneration)) throw error;
  }
  let paths = 0;
  let unsigned = 0;
  const count = (line: EntryLine) => {
    const { info } = entryOf(line);
    paths++;
    if (!verifyNarInfo(info, keys) && !isContentAddressed(info)) unsigned++;
  };
  const header = await readSegment({ ...context, trust: {} }, name, count, { tag });
  return header && { name, record: header.record, isSigned: false, paths, unsigned };
}

/** Whether a later one stands for it: of bare paths and pins only one that repeats it, as each revision counts there. */
function isSucceeded({ name, record }: Examined, all: readonly Examined[]): boolean {
  const line = lineOf(record);
  const countsAlone = record.source === PATHS_SOURCE || record.source.startsWith(PIN_PREFIX);
  return all.some((other) => {
    if (other.name <= name || lineOf(other.record) !== line) return false;
    if (countsAlone) return other.isSigned && other.record.content === record.content;
    return !other.record.partial || record.partial === true;
  });
}

async function signOne(
  context: ProtocolContext,
  name: GenerationName,
  tag: string,
  signer: SecretKey,
): Promise<GenerationName | undefined> {
  const lines: EntryLine[] = [];
  const header = await readSegment({ ...context, trust: {} }, name, (line) => lines.push(line), { tag });
  if (header === undefined) return undefined;
  const signing = { ...context, trust: { ...context.trust, signer } };
  const writer = new GenerationWriter(signing, { revision: header.record.revision }, name);
  const outcome = await writer.commit(header.record, lines, blobsOf(lines));
  if ("committed" in outcome) return outcome.committed;
  throw new NixcacheError(
    "corrupt",
    `${tag} of ${context.store.name} cannot be signed: it names blobs that are gone: ${outcome.missing[0]}`,
    { hint: "Run nixcache verify --repair, and sign again." },
  );
}
