/** Checking bytes: that blobs are there with their size, and with `deep` that every byte is right. */
import { type EntryLine, entryOf, filesBeside, LISTING } from "../cache/entry.ts";
import type { Part } from "../cache/part.ts";
import { mapConcurrently } from "../concurrency.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import { encodeBase32 } from "../nar/base32.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { readNarFile } from "../protocol/nar-file.ts";
import { readPackedFile } from "../protocol/packed-file.ts";
import { decompress } from "../zstd.ts";
import type { Finding } from "./finding.ts";

/** Downloads under way at once. */
const DOWNLOADS = 4;

export interface DamagedBlobs {
  readonly findings: readonly Finding[];
  readonly digests: readonly Digest[];
}

export async function checkBlobs(
  context: ProtocolContext,
  blobs: ReadonlyMap<Digest, { readonly size: number }>,
  deep: boolean,
): Promise<DamagedBlobs> {
  const { store, signal, concurrency } = context;
  const findings: Finding[] = [];
  const check = async ([digest, { size }]: [Digest, { readonly size: number }]): Promise<
    Finding | undefined
  > => {
    const found = await store.statBlob(digest, { signal });
    if (found === undefined)
      return { kind: "blob-missing", subject: digest, detail: `expected ${size} bytes` };
    if (found !== size)
      return { kind: "blob-size", subject: digest, detail: `got ${found} bytes, expected ${size}` };
    return deep ? checkContent(context, digest) : undefined;
  };
  const results = await mapConcurrently([...blobs], deep ? DOWNLOADS : concurrency, check);
  const digests: Digest[] = [];
  for (const finding of results) {
    if (finding === undefined) continue;
    findings.push(finding);
    digests.push(finding.subject as Digest);
  }
  return { findings, digests };
}

async function checkContent(
  { store, signal }: ProtocolContext,
  digest: Digest,
): Promise<Finding | undefined> {
  const stream = await store.readBlob(digest, { signal });
  if (stream === undefined)
    return { kind: "blob-missing", subject: digest, detail: "it vanished while it was checked" };
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of stream) hasher.update(chunk);
  const found = hasher.digest("hex");
  if (found === digestHex(digest)) return undefined;
  return { kind: "blob-corrupt", subject: digest, detail: `the bytes have the SHA-256 ${found}` };
}

/** Downloads and unpacks each NAR once. Other compressions than zstd are checked as far as their file's hash. */
export async function checkNars(
  context: ProtocolContext,
  lines: readonly EntryLine[],
): Promise<{ finding: Finding; line: EntryLine }[]> {
  const claims = Map.groupBy(lines, (line) => {
    const { narHash, narSize } = entryOf(line).info;
    return `${line.file} ${narHash} ${narSize} ${line.rest}`;
  });
  const results = await mapConcurrently([...claims.values()], DOWNLOADS, async (same) => {
    const line = same[0] as EntryLine;
    const { info } = entryOf(line);
    const detail = await checkNar(context, line).catch((error) => {
      if (error instanceof NixcacheError && error.code !== "corrupt") throw error;
      return messageOf(error);
    });
    if (detail === undefined) return [];
    const finding = { kind: "nar-corrupt", subject: info.storePath, detail } as const;
    return same.map((line) => ({ finding, line }));
  });
  return results.flat();
}

/** Unpacks listings and attached files outside the blobs that are `gone`; a listing must be JSON. */
export async function checkFiles(
  context: ProtocolContext,
  lines: readonly EntryLine[],
  gone: ReadonlySet<Digest>,
): Promise<{ finding: Finding; line: EntryLine; name: string }[]> {
  const files = lines.flatMap((line) =>
    [...filesBeside(entryOf(line))]
      .filter(([, part]) => !gone.has(part.blob))
      .map(([name, part]) => ({ line, name, part })),
  );
  // Outputs of one derivation may share its log, restated lines all of theirs.
  const same = Map.groupBy(files, ({ name, part }) => `${name === LISTING} ${JSON.stringify(part)}`);
  const results = await mapConcurrently([...same.values()], DOWNLOADS, async (users) => {
    const [{ name, part }] = users as [(typeof users)[0]];
    const problem = await checkFile(context, name, part);
    if (problem === undefined) return [];
    return users.map(({ line, name }) => {
      const detail = `${name}: ${problem}`;
      return {
        finding: { kind: "file-corrupt", subject: entryOf(line).info.storePath, detail } as const,
        line,
        name,
      };
    });
  });
  return results.flat();
}

/** What is wrong with the file, if anything. */
async function checkFile(
  { store, signal }: ProtocolContext,
  name: string,
  part: Part,
): Promise<string | undefined> {
  try {
    const chunks: Uint8Array[] = [];
    for await (const chunk of readPackedFile(part, store, { signal })) {
      if (name === LISTING) chunks.push(chunk.slice());
    }
    if (name === LISTING) JSON.parse(Buffer.concat(chunks).toString());
    return undefined;
  } catch (error) {
    if (error instanceof NixcacheError && error.code !== "corrupt") throw error;
    return messageOf(error);
  }
}

/** What is wrong with the NAR, if anything. */
async function checkNar({ store, signal }: ProtocolContext, line: EntryLine): Promise<string | undefined> {
  const { info, parts } = entryOf(line);
  const file = readNarFile({ parts, fileHash: info.fileHash }, store, { signal });
  const nar =
    info.compression === "zstd" ? decompress(new Response(file).body as ReadableStream<Uint8Array>) : file;
  const hasher = new Bun.CryptoHasher("sha256");
  let size = 0;
  for await (const chunk of nar) {
    hasher.update(chunk);
    size += chunk.length;
  }
  if (info.compression !== "zstd" && info.compression !== "none") return undefined;
  const narHash = `sha256:${encodeBase32(hasher.digest())}`;
  if (narHash === info.narHash && size === info.narSize) return undefined;
  return `it unpacks to ${size} bytes with ${narHash}, expected ${info.narSize} bytes with ${info.narHash}`;
}
