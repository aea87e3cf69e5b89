/** A receiver in a test: over a store in memory, with a journal of its own, and uploads as Nix makes them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { realHost } from "../../src/context.ts";
import type { Host } from "../../src/host.ts";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { formatNarInfo, type NarInfo } from "../../src/nar/narinfo.ts";
import type { SecretKey } from "../../src/nar/signing-key.ts";
import type { Store } from "../../src/oci/store.ts";
import { Committer } from "../../src/receive/committer.ts";
import { Journal } from "../../src/receive/journal.ts";
import { createReceiver } from "../../src/receive/receiver.ts";
import { createGuard, type Guard } from "../../src/serve/guard.ts";
import { route } from "../../src/serve/route.ts";
import { party, storeHash, type TestParty } from "./protocol.ts";
import { noise } from "./publish.ts";

export interface ReceivingOptions {
  readonly folder?: string;
  readonly key?: SecretKey;
  readonly token?: string;
  readonly guard?: Guard;
  readonly journalBytes?: number;
  readonly partBytes?: number;
  /** Names of paths that an upstream has. */
  readonly upstream?: readonly string[];
  readonly machine?: TestParty;
  /** Waits for bodies that stall. */
  readonly host?: Pick<Host, "sleep">;
}

export function receiving(store: Store, options: ReceivingOptions = {}) {
  const machine = options.machine ?? party(store);
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), "nixcache-test-journal-"));
  const journal = Journal.open(folder, store, machine.host.now);
  const had = new Set((options.upstream ?? []).map(storeHash));
  const elsewhere = async (hash: string) => had.has(hash);
  const logged: string[] = [];
  const committer = new Committer({
    ...machine,
    journal,
    elsewhere,
    partBytes: options.partBytes ?? 1024 ** 3,
    origin: { tool: "test", source: "paths", keys: [] },
    log: { info: (message) => logged.push(message), warn: (message) => logged.push(message) },
  });
  const writer = createReceiver({
    journal,
    index: () => machine.database.view,
    isLoaded: () => true,
    elsewhere,
    committer,
    key: options.key,
    host: options.host ?? realHost,
    onError: (message) => logged.push(message),
    guard: options.guard ?? createGuard({ hostname: "127.0.0.1" }),
    token: options.token,
    journalBytes: options.journalBytes ?? 1024 ** 3,
  });
  const put = async (path: string, body: string | Uint8Array, headers: Record<string, string> = {}) => {
    const bytes = new Uint8Array(Buffer.from(body as string));
    const request = new Request(`http://127.0.0.1/${path}`, {
      method: "PUT",
      body: bytes,
      headers: { host: "127.0.0.1", "content-length": String(bytes.length), ...headers },
    });
    const response = await writer.put(route("GET", request.url), request);
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  return {
    machine,
    journal,
    folder,
    committer,
    writer,
    logged,
    put,
    /** A PUT of any body. */
    async send(path: string, body: ReadableStream<Uint8Array>, length: number) {
      const headers = { host: "127.0.0.1", "content-length": String(length) };
      const request = new Request(`http://127.0.0.1/${path}`, { method: "PUT", body, headers });
      const response = await writer.put(route("GET", request.url), request);
      return { status: response.status, text: await response.text() };
    },
    /** Uploads a path as Nix does. @returns the narinfo's answer */
    async upload(path: UploadedPath) {
      const nar = await put(`nar/${path.file}`, path.bytes);
      if (nar.status >= 300) return nar;
      return put(`${path.hash}.narinfo`, formatNarInfo(path.info));
    },
    /** Commits what there is. */
    async commit() {
      committer.close();
      await committer.run();
    },
    [Symbol.dispose]() {
      journal[Symbol.dispose]();
      rmSync(folder, { recursive: true, force: true });
      machine[Symbol.dispose]();
    },
  };
}

export interface UploadedPath {
  readonly name: string;
  readonly hash: string;
  /** Name of the NAR file. */
  readonly file: string;
  readonly nar: Uint8Array;
  readonly bytes: Uint8Array;
  readonly info: NarInfo;
}

const EXTENSIONS: Record<string, string> = { none: "", gzip: ".gz", zstd: ".zst", br: ".br", xz: ".xz" };

const PACK: Record<string, (nar: Uint8Array<ArrayBuffer>) => Uint8Array> = {
  gzip: (nar) => Bun.gzipSync(nar),
  zstd: (nar) => Bun.zstdCompressSync(nar),
  br: (nar) => brotliCompressSync(nar),
};

/** A path whose NAR is made of its name; with `xz` the bytes are as they are, since nobody here unpacks them. */
export function uploadedPath(
  name: string,
  options: {
    references?: readonly string[];
    size?: number;
    compression?: string;
    content?: string;
    deriver?: string;
  } = {},
): UploadedPath {
  const { references = [], size = 500, compression = "none", content = name, deriver } = options;
  const nar = noise(content, size);
  const bytes = PACK[compression]?.(nar) ?? nar;
  const fileHash = sha256Base32(bytes);
  const file = `${fileHash}.nar${EXTENSIONS[compression]}`;
  return {
    name,
    hash: storeHash(name),
    file,
    nar,
    bytes,
    info: {
      storePath: `/nix/store/${storeHash(name)}-${name}`,
      url: `nar/${file}`,
      compression,
      fileHash: `sha256:${fileHash}`,
      fileSize: bytes.length,
      narHash: `sha256:${sha256Base32(nar)}`,
      narSize: nar.length,
      references: references.map((reference) => `${storeHash(reference)}-${reference}`).sort(),
      ...(deriver && { deriver }),
      sigs: [],
    },
  };
}

function sha256Base32(bytes: Uint8Array): string {
  return encodeBase32(new Bun.CryptoHasher("sha256").update(bytes).digest() as Uint8Array);
}
