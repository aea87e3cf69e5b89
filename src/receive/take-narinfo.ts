/** Taking in a narinfo: its NAR is here and is what it says, its references are somewhere, and then it is signed. */
import { Standing, standingOfInfo } from "../cache/builds.ts";
import { mapConcurrently } from "../concurrency.ts";
import { preview } from "../errors.ts";
import { formatNarInfo, MAX_NARINFO_LENGTH, type NarInfo, parseNarInfo } from "../nar/narinfo.ts";
import { fingerprint, isSignature, parseSignature, signNarInfo } from "../nar/signature.ts";
import { storeHashOf } from "../nar/store-path.ts";
import { baseName, fileName } from "./batch.ts";
import { receiveText, type Upload } from "./body.ts";
import type { Intake } from "./intake.ts";
import { checkNar } from "./nar-check.ts";
import { Refusal, readSent } from "./refusal.ts";
import { hashOf } from "./take-nar.ts";

/** What every Nix can unpack. */
const COMPRESSIONS = new Set(["none", "xz", "bzip2", "gzip", "zstd", "br", "lz4", "lzip"]);

/** Questions about references under way at once. */
const ASK_AT_ONCE = 16;

/** Whether it says anything new. @throws Refusal */
export async function takeNarInfo(storeHash: string, upload: Upload, intake: Intake): Promise<boolean> {
  const text = await receiveText(upload, MAX_NARINFO_LENGTH);
  const sent = readSent(() => parseNarInfo(text, `${storeHash}.narinfo`));
  if (storeHashOf(sent.storePath) !== storeHash) {
    throw new Refusal(400, `${storeHash}.narinfo: got the narinfo of ${sent.storePath}`);
  }
  if (!COMPRESSIONS.has(sent.compression)) {
    throw new Refusal(
      400,
      `${sent.storePath}: got Compression: ${sent.compression}, which not every Nix can unpack`,
    );
  }
  // Clients give up on a path for one that is none, even beside a good one.
  for (const sig of sent.sigs) readSent(() => parseSignature(sig, sent.storePath));
  checkBuild(sent, intake);
  await checkReferences(sent, intake);
  const described = await withFile(sent, intake);
  // Again, as another upload may have come to its end meanwhile.
  checkBuild(sent, intake);
  const present = intake.narinfo(storeHash);
  const info = withSignatures(described, present, intake);
  const narinfo = formatNarInfo(info);
  if (narinfo === present) return false;
  const size = Buffer.byteLength(narinfo);
  if (size > MAX_NARINFO_LENGTH) {
    throw new Refusal(
      413,
      `${info.storePath}: the narinfo has ${size} bytes with all signatures, expected at most ${MAX_NARINFO_LENGTH}`,
    );
  }
  const file = {
    path: `${storeHash}.narinfo`,
    kind: "narinfo",
    hash: storeHash,
    nar: fileName(info),
  } as const;
  await intake.within(size, () =>
    intake.journal.addText({ ...file, deriver: info.deriver ?? null }, narinfo),
  );
  intake.added();
  return true;
}

/** @throws Refusal when there is another build of the path that is signed: clients trust that one */
function checkBuild(info: NarInfo, intake: Intake): void {
  const present = intake.narinfo(storeHashOf(info.storePath));
  const known = present === undefined ? undefined : parseNarInfo(present);
  if (known === undefined || fingerprint(known) === fingerprint(info)) return;
  if (standingOfInfo(known, intake.index().keys()) === Standing.Unsigned) return;
  throw new Refusal(
    409,
    `${info.storePath}: there is another build of it that is signed, with NarHash: ${known.narHash}; \`nixcache publish --replace-signed\` replaces it`,
  );
}

/** Rule 3. @throws Refusal when a reference is nowhere */
async function checkReferences(info: NarInfo, intake: Intake): Promise<void> {
  const self = baseName(info.storePath);
  const unknown = info.references.filter(
    (reference) => reference !== self && !intake.has(storeHashOf(reference)),
  );
  const found = await mapConcurrently(unknown, ASK_AT_ONCE, (reference) =>
    intake.elsewhere(storeHashOf(reference), reference),
  );
  const missing = unknown.find((_, at) => !found[at]);
  if (missing === undefined) return;
  throw new Refusal(
    400,
    `${info.storePath} refers to ${missing}, which is neither in the cache nor in an upstream that answers; upload it first`,
  );
}

/** The narinfo with FileHash and FileSize as its NAR file has them. @throws Refusal unless it describes that file */
async function withFile(info: NarInfo, { journal, index }: Intake): Promise<NarInfo> {
  const file = fileName(info);
  if (info.url !== `nar/${file}`)
    throw new Refusal(400, `got URL: ${preview(info.url)}, expected nar/<file>`);
  const kept = journal.file(`nar/${file}`);
  if (kept?.digest) {
    const whole = { ...info, fileHash: hashOf(kept.digest), fileSize: kept.size };
    checkFile(info, whole);
    await checkNar(journal.blobFile(kept.digest), info);
    return whole;
  }
  const located = index().nar(file);
  if (located?.narinfo === undefined) {
    throw new Refusal(400, `${info.storePath}: its NAR ${info.url} must be uploaded before the narinfo`);
  }
  const other = parseNarInfo(located.narinfo);
  const fileSize = located.parts.reduce((sum, part) => sum + part.length, 0);
  const whole = { ...info, ...(other.fileHash && { fileHash: other.fileHash }), fileSize };
  checkFile(info, whole);
  const isSame = ["narHash", "narSize", "compression"] as const;
  if (isSame.every((field) => info[field] === other[field])) return whole;
  throw new Refusal(400, `${info.storePath}: ${info.url} holds another NAR, that of ${other.storePath}`);
}

/** @throws Refusal when the narinfo states another file than there is */
function checkFile(stated: NarInfo, found: NarInfo): void {
  for (const [field, name] of [
    ["fileHash", "FileHash"],
    ["fileSize", "FileSize"],
  ] as const) {
    if (stated[field] === undefined || stated[field] === found[field]) continue;
    throw new Refusal(
      400,
      `${stated.storePath}: got ${name}: ${stated[field]}, the file has ${found[field]}`,
    );
  }
}

/** With the signatures that the same build has already, and our own. */
function withSignatures(info: NarInfo, present: string | undefined, { key }: Intake): NarInfo {
  const old = present === undefined ? undefined : parseNarInfo(present);
  const gathered = old && fingerprint(old) === fingerprint(info) ? old.sigs.filter(isSignature) : [];
  const own = key === undefined ? [] : [signNarInfo(info, key)];
  return { ...info, sigs: [...new Set([...gathered, ...info.sigs, ...own])] };
}
