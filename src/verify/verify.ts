/**
 * Verifying a cache: that everything its generations promise is there and right. Reads the segments, which are
 * the truth, never the local index.
 */
import type { KeyRing } from "../cache/builds.ts";
import {
  allParts,
  type Entry,
  type EntryLine,
  entryOf,
  filesBeside,
  withoutFiles,
  withoutSignatures,
} from "../cache/entry.ts";
import { segmentTag, V1_TAG } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import { preview } from "../errors.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { isSignature, parseSignature, verifyNarInfo } from "../nar/signature.ts";
import { type PublicKey, publicKeysAmong } from "../nar/signing-key.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import type { Digest } from "../oci/digest.ts";
import type { ProtocolContext } from "../protocol/context.ts";
import { refresh } from "../protocol/refresh.ts";
import type { Upstream } from "../upstream/client.ts";
import { UpstreamQuestions } from "../upstream/questions.ts";
import { checkBlobs, checkFiles, checkNars } from "./deep.ts";
import type { Finding } from "./finding.ts";
import { refusedReferences } from "./refused.ts";
import { readSegments, type Segments } from "./segments.ts";

export interface VerifyContext extends ProtocolContext {
  readonly upstreams: readonly Upstream[];
  /** Keys to check signatures by, beside those that the publish records name. */
  readonly keys: readonly PublicKey[];
}

export interface Verification {
  readonly segments: Segments;
  readonly counts: {
    readonly generations: number;
    /** Distinct store paths. */
    readonly entries: number;
    readonly blobs: number;
    /** Bytes of all blobs. */
    readonly bytes: number;
    /** Store paths without a signature by a key that is known. */
    readonly unsigned: number;
  };
  readonly findings: readonly Finding[];
  /** Lines whose NARs cannot be served, by `lineKey`. */
  readonly bad: ReadonlySet<string>;
  /** What to put in the place of lines with files that cannot be served, or signatures that are none, by their text. */
  readonly mended: ReadonlyMap<string, EntryLine>;
}

/** Tells lines apart by where their NARs are: another generation may have the same path in other blobs. */
export function lineKey(line: Pick<EntryLine, "storeHash" | "rest">): string {
  return `${line.storeHash} ${line.rest}`;
}

/** Tells lines apart by all that they say. */
export function lineText(line: Pick<EntryLine, "narinfo" | "rest">): string {
  return line.narinfo + line.rest;
}

/** @param deep downloads and hashes everything. @throws when the store cannot be asked. */
export async function verify(
  context: VerifyContext,
  options: { deep?: boolean } = {},
): Promise<Verification> {
  const segments = await readSegments(context);
  const findings: Finding[] = [...segments.findings];
  const lines = distinctLines(segments);
  const bad = new Set<string>();

  const dropped = new Map<EntryLine, Set<string>>();
  const drop = (line: EntryLine, name: string) =>
    dropped.set(line, (dropped.get(line) ?? new Set()).add(name));

  const blobs = new Map<Digest, { size: number }>();
  for (const line of lines) {
    for (const { blob, size } of allParts(entryOf(line))) blobs.set(blob, { size });
  }
  const damaged = await checkBlobs(context, blobs, options.deep ?? false);
  findings.push(...damaged.findings);
  const gone = new Set(damaged.digests);
  for (const line of lines) {
    const entry = entryOf(line);
    if (entry.parts.some(({ blob }) => gone.has(blob))) bad.add(lineKey(line));
    for (const [name, { blob }] of filesBeside(entry)) if (gone.has(blob)) drop(line, name);
  }

  if (options.deep) {
    const whole = lines.filter((line) => !bad.has(lineKey(line)));
    for (const { finding, line } of await checkNars(context, whole)) {
      findings.push(finding);
      bad.add(lineKey(line));
    }
    for (const { finding, line, name } of await checkFiles(context, whole, gone)) {
      findings.push(finding);
      drop(line, name);
    }
  }
  findings.push(...(await missingReferences(context, lines)));
  const keys = keyRing(context, segments);
  const signatures = checkSignatures(lines, [...keys.given, ...keys.named]);
  findings.push(...refusedReferences(lines, keys));
  findings.push(...signatures.findings, ...(await uncovered(context, segments)));
  return {
    segments,
    counts: {
      generations: segments.readable.length + segments.unreadable.length + segments.later.length,
      entries: new Set(lines.map(({ storeHash }) => storeHash)).size,
      blobs: blobs.size,
      bytes: [...blobs.values()].reduce((sum, { size }) => sum + size, 0),
      unsigned: signatures.unsigned,
    },
    findings,
    bad,
    mended: new Map(
      lines.flatMap((line) => {
        const [files, sigs] = [dropped.get(line), signatures.malformed.get(line)];
        if (files === undefined && sigs === undefined) return [];
        const without = files === undefined ? line : withoutFiles(line, files);
        return [[lineText(line), sigs === undefined ? without : withoutSignatures(without, sigs)]];
      }),
    ),
  };
}

/** Generations restate each other's lines; each is looked at once. */
function distinctLines({ readable }: Segments): EntryLine[] {
  const lines = new Map<string, EntryLine>();
  for (const segment of readable) {
    for (const line of segment.lines) lines.set(lineText(line), line);
  }
  return [...lines.values()];
}

function keyRing({ keys }: VerifyContext, { readable }: Segments): KeyRing {
  const named = new Set(readable.flatMap(({ record }) => record.keys));
  return { given: keys, named: publicKeysAmong(named) };
}

function checkSignatures(lines: readonly EntryLine[], keys: readonly PublicKey[]) {
  const findings: Finding[] = [];
  const malformed = new Map<EntryLine, Set<string>>();
  let unsigned = 0;
  for (const line of lines) {
    const { info } = entryOf(line);
    // Nix trusts a content-addressed path by its content.
    if (!verifyNarInfo(info, keys) && !isContentAddressed(info)) unsigned++;
    const none = info.sigs.filter((signature) => !isSignature(signature));
    if (none.length > 0) malformed.set(line, new Set(none));
    for (const signature of none)
      findings.push({
        kind: "signature-malformed",
        subject: info.storePath,
        detail: preview(signature, 150),
      });
    for (const signature of info.sigs.filter(isSignature)) {
      const named = keys.filter(({ name }) => name === parseSignature(signature).name);
      if (named.length === 0 || named.some((key) => verifyNarInfo({ ...info, sigs: [signature] }, [key])))
        continue;
      const detail = `the signature by ${named[0]?.name} does not match path, NAR hash, size and references`;
      findings.push({ kind: "signature-bad", subject: info.storePath, detail });
    }
  }
  return { findings, unsigned, malformed };
}

/** References that are in no generation are asked for upstream; only a clear "no" of all of them is a finding. */
async function missingReferences(context: VerifyContext, lines: readonly EntryLine[]): Promise<Finding[]> {
  const present = new Set(lines.map(({ storeHash }) => storeHash));
  const wanted = new Map<string, { reference: string; from: Entry }>();
  for (const entry of lines.map(entryOf)) {
    for (const reference of entry.info.references) {
      const hash = reference.slice(0, 32);
      if (!present.has(hash)) wanted.set(hash, { reference, from: entry });
    }
  }
  const questions = new UpstreamQuestions(context.upstreams, {
    ...{ signal: context.signal, warn: context.warn },
    consequence: "so it may have what is missing",
  });
  const findings = await mapConcurrently(
    [...wanted],
    context.concurrency,
    async ([hash, { reference, from }]) => {
      const storePath = `${STORE_DIR}/${reference}`;
      if ((await questions.ask(hash, { storePath })) !== "absent") return [];
      const detail = `${reference} is neither in the cache nor upstream`;
      return [{ kind: "reference-missing", subject: from.info.storePath, detail } as const];
    },
  );
  return findings.flat();
}

async function uncovered(
  context: VerifyContext,
  { readable, unreadable, later }: Segments,
): Promise<Finding[]> {
  await refresh(context, { list: true, without: new Set([...unreadable, ...later]) });
  const { view } = context.database;
  const covered = new Set(
    view
      .layers()
      .filter(({ position }) => position !== null)
      .flatMap(({ id }) => view.generations(id).map(({ name }) => name)),
  );
  const behind = readable
    .filter(({ name }) => !covered.has(name))
    .map(({ name }): Finding => {
      return { kind: "root-behind", subject: segmentTag(name), detail: "the next publish covers it" };
    });
  const v1 = view.v1Layer();
  if (v1 === undefined) return behind;
  return [...behind, { kind: "not-adopted", subject: V1_TAG, detail: `its index is ${v1.digest}` }];
}
