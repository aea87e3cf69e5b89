/** Taking in what stands beside a narinfo: its listing, the build log, realisations, debuginfo. */
import { MAX_ATTACHMENTS, MAX_TEXT_BYTES } from "../cache/attachment.ts";
import { filesOf } from "../cache/entry.ts";
import { preview } from "../errors.ts";
import { mergeRealisation, type Realisation, realisationPath, signRealisation } from "../nar/realisation.ts";
import { isBaseName, storeHashOf } from "../nar/store-path.ts";
import { baseName, narParts } from "./batch.ts";
import { lengthOf, receiveCompressed, receiveText, type Upload } from "./body.ts";
import type { Intake } from "./intake.ts";
import type { NewFile } from "./journal.ts";
import { Refusal } from "./refusal.ts";
import { digestOfName } from "./take-nar.ts";

/** Listings and logs, unpacked, in bytes. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;

/** Nix sends it first: it waits for its narinfo. @throws Refusal */
export async function takeListing(storeHash: string, upload: Upload, intake: Intake): Promise<boolean> {
  await takeCompressed({ path: `${storeHash}.ls`, kind: "listing", hash: storeHash }, upload, intake);
  if (intake.has(storeHash)) intake.added();
  return true;
}

/** @param path as in the URL, such as `log/….drv`. @throws Refusal */
export function takeAttached(path: string, upload: Upload, intake: Intake): Promise<boolean> {
  if (path.startsWith("log/")) return takeLog(path, upload, intake);
  if (path.startsWith("debuginfo/")) return takeDebuginfo(path, upload, intake);
  return takeRealisation(path, upload, intake);
}

/** It belongs to a path that its derivation has made. */
async function takeLog(path: string, upload: Upload, intake: Intake): Promise<boolean> {
  const derivation = path.slice("log/".length);
  const hash = intake.journal.ofDeriver(derivation) ?? intake.index().ofDeriver(derivation);
  if (hash === undefined) {
    throw new Refusal(
      400,
      `no path in the cache was made by ${derivation}; upload its output first, then the log`,
    );
  }
  checkCount(path, hash, "", intake);
  await takeCompressed({ path, kind: "attached", hash }, upload, intake);
  intake.added();
  return true;
}

/** It points into a NAR, which Nix sends next. */
async function takeDebuginfo(path: string, upload: Upload, intake: Intake): Promise<boolean> {
  const body = await receiveText(upload, MAX_TEXT_BYTES);
  const nar = baseName(textIn(parseJson(body, path), "archive", path));
  digestOfName(nar);
  checkText(path, body);
  checkCount(path, "", nar, intake);
  await intake.within(Buffer.byteLength(body), () =>
    intake.journal.addText({ path, kind: "attached", nar }, body),
  );
  if (narParts(intake.index(), nar)) intake.added();
  return true;
}

/** It belongs to the path that it names. */
async function takeRealisation(path: string, upload: Upload, intake: Intake): Promise<boolean> {
  const { journal, index } = intake;
  const body = await receiveText(upload, MAX_TEXT_BYTES);
  const value = parseJson(body, path);
  const output = baseName(textIn(value, "outPath", path));
  const hash = isBaseName(output) ? storeHashOf(output) : "";
  if (!intake.has(hash)) {
    throw new Refusal(400, `${path}: its output ${preview(output)} is not in the cache; upload it first`);
  }
  checkCount(path, hash, "", intake);
  const present = journal.view.attached(path) ?? index().attached(path);
  const known = present && "text" in present ? present.text : undefined;
  const text = path.startsWith("realisations/") ? signedText(value, path, known, intake) : body;
  if (text === known) return false;
  checkText(path, text);
  await intake.within(Buffer.byteLength(text), () => journal.addText({ path, kind: "attached", hash }, text));
  intake.added();
  return true;
}

/** With our signature, and with those that the same realisation has already. */
function signedText(
  value: Record<string, unknown>,
  path: string,
  known: string | undefined,
  { key }: Intake,
): string {
  const { signatures = [], dependentRealisations = {} } = value;
  const isText = (item: unknown) => typeof item === "string";
  const isWhole =
    Array.isArray(signatures) &&
    signatures.every(isText) &&
    typeof dependentRealisations === "object" &&
    dependentRealisations !== null &&
    Object.values(dependentRealisations).every(isText);
  const realisation = { ...value, signatures, dependentRealisations } as unknown as Realisation;
  if (!isWhole || realisationPath(realisation) !== path) {
    throw new Refusal(400, `${path}: got ${preview(value)}, expected the realisation of that id`);
  }
  return mergeRealisation(key ? signRealisation(realisation, key) : realisation, known);
}

async function takeCompressed(file: NewFile, upload: Upload, intake: Intake): Promise<void> {
  const { journal } = intake;
  const length = lengthOf(upload, MAX_FILE_BYTES);
  await intake.within(length, async () => {
    await journal.addFile(file, await receiveCompressed(upload, journal.draft(), MAX_FILE_BYTES));
  });
}

/** @throws Refusal when an entry would have more attached files than its line holds */
function checkCount(path: string, hash: string, nar: string, { journal, index }: Intake): void {
  const line = index().line(hash);
  const paths = new Set([
    path,
    ...journal
      .beside(hash, nar)
      .filter(({ kind }) => kind === "attached")
      .map((file) => file.path),
    ...Object.keys((line && filesOf(line.rest, hash).attached) ?? {}),
  ]);
  if (paths.size <= MAX_ATTACHMENTS) return;
  throw new Refusal(413, `${path}: a store path can have ${MAX_ATTACHMENTS} logs, realisations and the like`);
}

/** @throws Refusal for what would not fit into the line of its entry: as JSON, and with all signatures */
function checkText(path: string, text: string): void {
  const size = Buffer.byteLength(JSON.stringify(text));
  if (size <= MAX_TEXT_BYTES) return;
  throw new Refusal(
    413,
    `${path}: it would take ${size} bytes of the index, expected at most ${MAX_TEXT_BYTES}`,
  );
}

function parseJson(body: string, path: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(body);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // Refused below.
  }
  throw new Refusal(400, `${path}: expected a JSON object`);
}

function textIn(value: Record<string, unknown>, field: string, path: string): string {
  const text = value[field];
  if (typeof text === "string" && text !== "") return text;
  throw new Refusal(400, `${path}: got ${preview(field)}: ${preview(text)}, expected a text`);
}
