/** A cache in a test: a store, and readers and publishers with their own local index and clock. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { IndexDatabase } from "../../src/cache/database.ts";
import { type EntryLine, encodeEntry, formatLine } from "../../src/cache/entry.ts";
import type { BlobReference } from "../../src/cache/manifests.ts";
import type { PublishRecord } from "../../src/cache/record.ts";
import type { Host } from "../../src/host.ts";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { signNarInfo } from "../../src/nar/signature.ts";
import type { PublicKey, SecretKey } from "../../src/nar/signing-key.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { Spool } from "../../src/oci/spool.ts";
import type { Store } from "../../src/oci/store.ts";
import type { ProtocolContext } from "../../src/protocol/context.ts";
import { GenerationWriter } from "../../src/protocol/generation.ts";

/** A clock that tests set, seeded chance, and sleeping that only moves the clock. */
export class TestHost implements Host {
  time: number;
  #state: number;

  constructor(time = Date.UTC(2026, 0, 1), seed = 1) {
    this.time = time;
    this.#state = seed;
  }

  now = (): number => this.time;

  /** mulberry32 */
  random = (): number => {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  sleep = async (ms: number): Promise<void> => {
    this.time += ms;
    // A turn of the event loop: whoever is waited for may be in this process.
    await new Promise((resolve) => setImmediate(resolve));
  };
}

export interface TestParty extends ProtocolContext, Disposable {
  readonly host: TestHost;
  readonly warnings: string[];
}

let parties = 0;

/**
 * A machine with its own local index, and unless one is given a clock a minute ahead of the one before. Its clock is the
 * test's, so a registry's, which is today's, is left out.
 * @param keys that it trusts
 */
export function party(
  store: Store,
  host = new TestHost(Date.UTC(2026, 0, 1, 0, ++parties), parties),
  keys: readonly PublicKey[] = [],
): TestParty {
  const directory = mkdtempSync(join(tmpdir(), "nixcache-test-"));
  const database = IndexDatabase.open(join(directory, "index.sqlite"), keys);
  const spool = new Spool(directory);
  const warnings: string[] = [];
  return {
    store: store.clockAheadMs === undefined ? store : { ...store, clockAheadMs: undefined },
    database,
    spool,
    host,
    concurrency: 4,
    warnings,
    warn: (message) => warnings.push(message),
    [Symbol.dispose]() {
      database.close();
      spool[Symbol.dispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** The 32 characters of a store hash made of any text. */
export function storeHash(name: string): string {
  return encodeBase32(new Bun.CryptoHasher("sha256").update(name).digest().subarray(0, 20));
}

/** The base name of a path made of its name. */
export function baseName(name: string): string {
  return `${storeHash(name)}-${name}`;
}

/** The path made of its name. */
export function testPath(name: string): string {
  return `/nix/store/${baseName(name)}`;
}

export interface TestEntryOptions {
  readonly added?: number;
  readonly sigs?: string[];
  /** Names of paths. */
  readonly references?: readonly string[];
  /** Another name whose NAR it has. */
  readonly content?: string;
  /** Keys that sign it, beside `sigs`. */
  readonly keys?: readonly SecretKey[];
}

/** A small entry with a NAR made of its name, and the NAR's blob. */
export function testEntry(name: string, options: TestEntryOptions = {}) {
  const nar = options.content ?? name;
  const content = new TextEncoder().encode(`compressed NAR of ${nar}`);
  const digest = digestOf(content);
  const fileHash = encodeBase32(new Bun.CryptoHasher("sha256").update(content).digest());
  const info = {
    storePath: testPath(name),
    url: `nar/${fileHash}.nar.zst`,
    compression: "zstd",
    fileHash: `sha256:${fileHash}`,
    fileSize: content.length,
    narHash: `sha256:${encodeBase32(new Bun.CryptoHasher("sha256").update(nar).digest())}`,
    narSize: 100,
    references: (options.references ?? []).map(baseName).sort(),
  };
  const sigs = (options.keys ?? []).map((key) => signNarInfo(info, key));
  const line = encodeEntry({
    info: { ...info, sigs: [...sigs, ...(options.sigs ?? [])] },
    parts: [{ blob: digest, size: content.length, offset: 0, length: content.length }],
    added: options.added ?? 1_700_000_000,
  });
  return { line, blob: { digest, size: content.length, content } };
}

export function testRecord(
  lines: readonly EntryLine[],
  host: Host,
  more: Partial<PublishRecord> = {},
): PublishRecord {
  return {
    time: new Date(host.now()).toISOString(),
    tool: "test",
    source: "paths",
    roots: {},
    keys: [],
    content: digestOf(lines.map(formatLine).join("\n")),
    entries: lines.length,
    ...more,
  };
}

/** Uploads and commits entries by name, without the fold. Returns the generation. */
export function commitNames(context: TestParty, names: readonly string[], more: Partial<PublishRecord> = {}) {
  return commitPaths(context, Object.fromEntries(names.map((name) => [name, {}])), more);
}

/** As `commitNames`, with options for each. */
export function commitPaths(
  context: TestParty,
  paths: Readonly<Record<string, TestEntryOptions>>,
  more: Partial<PublishRecord> = {},
) {
  const entries = Object.entries(paths).map(([name, options]) => testEntry(name, options));
  return commitEntries(context, entries, more);
}

export async function commitEntries(
  context: TestParty,
  entries: readonly ReturnType<typeof testEntry>[],
  more: Partial<PublishRecord> = {},
) {
  const writer = new GenerationWriter(context, {});
  for (const { blob } of entries) {
    if ((await context.store.statBlob(blob.digest)) === undefined) await context.store.writeBlob(blob);
    await writer.uploaded(blob);
  }
  const lines = entries.map(({ line }) => line);
  const blobs: BlobReference[] = entries.map(({ blob: { digest, size } }) => ({ digest, size }));
  const result = await writer.commit(testRecord(lines, context.host, more), lines, blobs);
  if (!("committed" in result)) throw new Error(`blobs missing: ${result.missing.join(", ")}`);
  return result.committed;
}

/** The names in a party's view, sorted. */
export function viewOf(context: ProtocolContext, names: readonly string[]): string[] {
  return names.filter((name) => context.database.view.narinfo(storeHash(name)) !== undefined).sort();
}
