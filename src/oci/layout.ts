/**
 * The store in a folder: an OCI image layout, which skopeo, oras and others read and write as well.
 * https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
 *
 * ```
 * oci-layout            {"imageLayoutVersion":"1.0.0"}, written last: where it is, the rest is
 * index.json            tag → manifest; replaced as a whole, under the lock
 * blobs/sha256/<hex>    manifests and blobs; immutable
 * .nixcache.lock        see layout-lock.ts
 * .nixcache-tmp/        files in the making
 * ```
 * Reading takes no lock. A blob that no manifest names stays until `collectBlobs`.
 */
import { open, readdir, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { kept, Semaphore } from "../concurrency.ts";
import { NixcacheError, systemCode } from "../errors.ts";
import type { Host } from "../host.ts";
import { type Digest, digestHex, digestOf, isDigest } from "./digest.ts";
import { collectBlobs } from "./layout-collect.ts";
import {
  checkWritable,
  fileError,
  fileSize,
  makeFolder,
  readSmallFile,
  removeLeftovers,
  replaceFile,
  storeBytes,
  storeFile,
  streamFile,
  syncFolder,
  touch,
  unlessMissing,
  unlessThrown,
} from "./layout-files.ts";
import {
  decodeIndex,
  EMPTY_INDEX,
  encodeIndex,
  findEntry,
  type LayoutIndex,
  MAX_INDEX_BYTES,
  tagsOf,
  withManifest,
  withoutManifest,
} from "./layout-index.ts";
import { withLock } from "./layout-lock.ts";
import { decodeManifest, MAX_MANIFEST_BYTES, MEDIA_TYPE_MANIFEST, parseJson } from "./manifest.ts";
import { throwIfAborted } from "./network.ts";
import { checkTagOrDigest } from "./reference.ts";
import { type BlobSource, type CallOptions, checkRange, type Store } from "./store.ts";

export interface LayoutOptions {
  readonly host: Host;
  /** Ends everything, such as on SIGINT. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds to wait for other processes that change the layout. Default: two minutes. */
  readonly lockTimeoutMs?: number | undefined;
}

const MARKER = "oci-layout";
const MARKER_BYTES = new TextEncoder().encode('{"imageLayoutVersion":"1.0.0"}');
const LOCK = ".nixcache.lock";
const TEMPORARY = ".nixcache-tmp";
const LOCK_TIMEOUT_MS = 120_000;

/**
 * The store of a folder, which is made by the first write. Missing or empty, it reads as an empty cache.
 * @param path relative to the current folder, unless it is absolute.
 */
export function openLayout(path: string, options: LayoutOptions): Store {
  const root = resolve(path);
  const { host } = options;
  const temporary = join(root, TEMPORARY);
  const indexFile = join(root, "index.json");
  const blobs = join(root, "blobs", "sha256");
  const blobFile = (digest: Digest) => join(blobs, digestHex(digest));

  /** Callers of this store queue up here, in their order, instead of polling against each other. */
  const queue = new Semaphore(1);
  const locked = <T>(call: CallOptions, action: () => Promise<T>): Promise<T> => {
    const timeoutMs = options.lockTimeoutMs ?? LOCK_TIMEOUT_MS;
    const signals = [call.signal, options.signal].filter((signal) => signal !== undefined);
    const lock = { host, timeoutMs, signal: signals.length > 1 ? AbortSignal.any(signals) : signals[0] };
    return queue.run(() => withLock(join(root, LOCK), lock, action));
  };

  /** The folder as it must be before something is written into it; made when it is missing. */
  const prepare = async (call: CallOptions): Promise<void> => {
    throwIfAborted(call.signal, options.signal);
    return create();
  };

  const create = kept(async (): Promise<void> => {
    await checkMarker(root);
    await makeFolder(root);
    await locked({}, async () => {
      await makeFolder(temporary);
      await makeFolder(blobs);
      await removeLeftovers(temporary, host.now());
      if (await checkMarker(root)) return;
      // An index without the marker: killed between the two, or the marker was lost. It is kept.
      if ((await fileSize(indexFile)) === undefined)
        await replaceFile(temporary, indexFile, encodeIndex(EMPTY_INDEX));
      await replaceFile(temporary, join(root, MARKER), MARKER_BYTES);
      await syncFolder(dirname(root));
    });
  });

  const readIndex = async (): Promise<LayoutIndex> => {
    if (!(await checkMarker(root))) return EMPTY_INDEX;
    const bytes = await readSmallFile(indexFile, MAX_INDEX_BYTES);
    if (bytes !== undefined) return decodeIndex(bytes, indexFile);
    throw new NixcacheError("layout", `${root}: it has ${MARKER} but no index.json`, {
      hint: "Restore index.json from a copy: without it nothing tells which blobs belong to what.",
    });
  };

  const change = (call: CallOptions, edit: (index: LayoutIndex) => Promise<LayoutIndex>): Promise<void> =>
    locked(call, async () => {
      const before = await readIndex();
      const after = await edit(before);
      if (after === before) return;
      // The names of the blobs must be on disk before something relies on them.
      await syncFolder(blobs);
      await replaceFile(temporary, indexFile, encodeIndex(after));
    });

  const statBlob: Store["statBlob"] = async (digest, call = {}) => {
    throwIfAborted(call.signal, options.signal);
    return (await checkMarker(root)) ? fileSize(blobFile(digest)) : undefined;
  };

  const readBlob: Store["readBlob"] = async (digest, { range, signal } = {}) => {
    checkRange(range);
    throwIfAborted(signal, options.signal);
    if (!(await checkMarker(root))) return undefined;
    const file = blobFile(digest);
    const handle = await unlessMissing("read", file, () => open(file, "r"));
    if (handle === undefined) return undefined;
    return unlessThrown(handle, async () => {
      const { size } = await handle.stat();
      const { offset, length } = range ?? { offset: 0, length: size };
      if (offset + length <= size) return streamFile(handle, file, offset, length);
      throw new NixcacheError(
        "corrupt",
        `read ${file}: bytes ${offset} to ${offset + length} are outside of its ${size} bytes`,
      );
    });
  };

  const writeBlob = async ({ digest, size, content }: BlobSource, call: CallOptions = {}): Promise<void> => {
    await prepare(call);
    const file = blobFile(digest);
    if ((await fileSize(file)) === size) return touch(file, host.now());
    if (!(content instanceof Uint8Array)) {
      // As every file that we make ourselves: the marker has the rights that the umask leaves.
      const { mode } = await stat(join(root, MARKER));
      return storeFile(temporary, file, digest, content, size, mode & 0o666);
    }
    if (content.length !== size) {
      throw new NixcacheError(
        "corrupt",
        `store ${digest}: the source has ${content.length} bytes, expected ${size}`,
      );
    }
    return storeBytes(temporary, file, digest, content);
  };

  const readManifest: Store["readManifest"] = async (tagOrDigest, { ifNot, signal } = {}) => {
    checkTagOrDigest(tagOrDigest);
    for (let again = false; ; again = true) {
      throwIfAborted(signal, options.signal);
      const entry = findEntry(await readIndex(), tagOrDigest);
      if (entry === undefined) return undefined;
      if (entry.digest === ifNot) return "unchanged";
      const file = blobFile(entry.digest);
      const bytes = await readSmallFile(file, MAX_MANIFEST_BYTES);
      if (bytes === undefined) {
        // Deleted and collected since the index was read? Then the index says so now.
        if (!again) continue;
        throw new NixcacheError(
          "corrupt",
          `${indexFile}: it names ${entry.digest} for ${tagOrDigest}, but ${file} is not there`,
        );
      }
      const digest = digestOf(bytes);
      if (digest === entry.digest) return { digest, mediaType: entry.mediaType, bytes };
      throw new NixcacheError("corrupt", `read ${file}: its digest is ${digest}, expected ${entry.digest}`);
    }
  };

  const statManifest: Store["statManifest"] = async (tagOrDigest, { signal } = {}) => {
    throwIfAborted(signal, options.signal);
    return findEntry(await readIndex(), checkTagOrDigest(tagOrDigest))?.digest;
  };

  const writeManifest: Store["writeManifest"] = async (tagOrDigest, mediaType, bytes, call = {}) => {
    checkTagOrDigest(tagOrDigest);
    const digest = digestOf(bytes);
    if (mediaType !== MEDIA_TYPE_MANIFEST || (isDigest(tagOrDigest) && tagOrDigest !== digest)) {
      throw new NixcacheError(
        "internal",
        `write manifest ${tagOrDigest}: got ${mediaType} with the digest ${digest}`,
      );
    }
    const manifest = decodeManifest(bytes, `manifest ${tagOrDigest}`);
    await prepare(call);
    await writeBlob({ digest, size: bytes.length, content: bytes }, call);
    const missing = new Set<Digest>();
    await change(call, async (index) => {
      for (const blob of [manifest.config, ...manifest.layers]) {
        if ((await fileSize(blobFile(blob.digest))) !== blob.size) missing.add(blob.digest);
      }
      if (missing.size > 0) return index;
      // A collection may have come since: it had no reason to spare what nothing named.
      if ((await fileSize(blobFile(digest))) === undefined)
        await storeBytes(temporary, blobFile(digest), digest, bytes);
      return withManifest(
        index,
        { mediaType, digest, size: bytes.length },
        isDigest(tagOrDigest) ? undefined : tagOrDigest,
      );
    });
    return missing.size === 0 ? digest : { blobsMissing: true, digests: [...missing] };
  };

  const deleteManifest: Store["deleteManifest"] = async (digest, call = {}) => {
    if (findEntry(await readIndex(), digest) === undefined) return false;
    await prepare(call);
    let found = false;
    await change(call, async (index) => {
      found = findEntry(index, digest) !== undefined;
      return found ? withoutManifest(index, digest) : index;
    });
    return found;
  };

  const listTags: Store["listTags"] = async (call = {}) => {
    throwIfAborted(call.signal, options.signal);
    return tagsOf(await readIndex());
  };

  const collect: Store["collectBlobs"] = async (call = {}) => {
    if (!(await checkMarker(root))) return { blobs: 0, bytes: 0 };
    await prepare(call);
    return collectBlobs({
      blobs,
      readIndex,
      locked: (action) => locked(call, action),
      now: () => host.now(),
    });
  };

  const checkWrite: Store["checkWrite"] = async ({ signal } = {}) => {
    throwIfAborted(signal, options.signal);
    if (!(await checkMarker(root))) return checkWritable(root);
    for (const folder of [root, temporary, blobs]) await checkWritable(folder);
  };

  return {
    name: path,
    strictness: "strict",
    checkWrite,
    statBlob,
    readBlob,
    writeBlob,
    blobFile,
    readManifest,
    statManifest,
    writeManifest,
    deleteManifest,
    listTags,
    collectBlobs: collect,
  };
}

/**
 * Whether the folder is a layout. False when it is missing or empty, or when its making was interrupted.
 * @throws `layout` when it holds something else, or a version that we do not know.
 */
async function checkMarker(root: string): Promise<boolean> {
  const file = join(root, MARKER);
  let bytes: Uint8Array | undefined;
  try {
    bytes = await readSmallFile(file, 64 * 1024);
  } catch (error) {
    const cause = error instanceof NixcacheError ? error.cause : undefined;
    if (systemCode(cause) === "ENOTDIR")
      throw new NixcacheError("layout", `${root}: it is a file, expected a folder`);
    throw error;
  }
  if (bytes !== undefined) {
    const json = parseJson(bytes, file);
    const version =
      typeof json === "object" && json !== null && "imageLayoutVersion" in json
        ? json.imageLayoutVersion
        : undefined;
    if (typeof version === "string" && version.startsWith("1.")) return true;
    throw new NixcacheError(
      "layout",
      `${file}: got imageLayoutVersion ${JSON.stringify(version)}, expected "1.0.0"`,
    );
  }
  let names: string[];
  try {
    names = await readdir(root);
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false;
    throw fileError("read", root, error);
  }
  // Our lock is made before all else: with it, the rest was on its way. The marker may have come since.
  if (names.length === 0 || names.includes(LOCK)) return names.includes(MARKER) ? checkMarker(root) : false;
  if (names.includes(MARKER)) return checkMarker(root);
  const some = names.slice(0, 3).map((name) => JSON.stringify(name));
  throw new NixcacheError(
    "layout",
    `${root}: it holds ${some.join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}, expected an OCI image layout or an empty folder`,
    { hint: "Name another folder, or a new one: nixcache makes it." },
  );
}
