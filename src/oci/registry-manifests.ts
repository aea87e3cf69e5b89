/**
 * Manifests of a registry repository.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
 */
import { mapConcurrently } from "../concurrency.ts";
import { NixcacheError, preview } from "../errors.ts";
import { type Digest, digestOf, isDigest } from "./digest.ts";
import { describeExchange, type Exchange } from "./hop.ts";
import {
  decodeManifest,
  encodeManifest,
  IMAGE_CONFIG,
  IMAGE_CONFIG_BYTES,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPE_IMAGE_CONFIG,
  MEDIA_TYPE_INDEX,
  MEDIA_TYPE_MANIFEST,
  withoutArtifactType,
} from "./manifest.ts";
import { throwIfAborted } from "./network.ts";
import { FEW_ATTEMPTS, isOddAnswer, orOtherWay } from "./other-way.ts";
import { checkTagOrDigest, isTag } from "./reference.ts";
import type { RegistryContext } from "./registry-context.ts";
import { isFault, lastAnswer, type RegistryError } from "./retry.ts";
import type { BlobsMissing, CallOptions, Store, StoredManifest } from "./store.ts";
import { type Answer, unexpected } from "./transport.ts";
import { uploadBlob } from "./upload.ts";

/** What registries may answer with under a tag; ours are all OCI manifests. */
const ACCEPT = [
  MEDIA_TYPE_MANIFEST,
  MEDIA_TYPE_INDEX,
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

type PutOptions = CallOptions & { faultAttempts?: number | undefined };

interface Refused {
  readonly refused: NixcacheError;
}

type ManifestMethods = Pick<Store, "readManifest" | "statManifest" | "writeManifest" | "deleteManifest">;

/** Codes that mean missing blobs at a manifest; GHCR has answered with the last one, too. */
const BLOB_CODES: readonly string[] = ["MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN", "BLOB_UPLOAD_UNKNOWN"];

/** Statuses of registries that do not say which blob a manifest lacks, or that it lacks one at all. */
const MAY_LACK_BLOBS: readonly number[] = [400, 404, 422];

/** So many odd answers to DELETE in a row say that nothing can be deleted. */
const ODD_DELETES = 3;

/** Blobs asked for at once after a refusal. */
const HEADS_AT_ONCE = 8;

export function registryManifests(context: RegistryContext, statBlob: Store["statBlob"]): ManifestMethods {
  const { transport, network, at } = context;
  /** Set once the registry has refused a custom artifact type and taken an image configuration. */
  let imageConfigs = false;
  let oddDeletes = 0;

  const readManifest: Store["readManifest"] = async (tagOrDigest, { ifNot, signal } = {}) => {
    const url = at(`manifests/${checkTagOrDigest(tagOrDigest)}`);
    const conditional = ifNot === undefined ? {} : { "if-none-match": `"${ifNot}"` };
    const exchange = {
      method: "GET",
      url,
      access: "pull",
      headers: { accept: ACCEPT, ...conditional },
      signal,
    } as const;
    if (ifNot === undefined) return readFrom(tagOrDigest, exchange);
    // A condition may be answered in any way, and the manifest is to be had without one.
    const few = { ...exchange, faultAttempts: FEW_ATTEMPTS };
    const found = await orOtherWay(
      async () => ({ manifest: await readFrom(tagOrDigest, few, ifNot) }),
      ...[signal, network.signal],
    );
    if (found !== undefined) return found.manifest;
    const manifest = await readManifest(tagOrDigest, { signal });
    return typeof manifest === "object" && manifest.digest === ifNot ? "unchanged" : manifest;
  };

  const readFrom = (
    tagOrDigest: string,
    exchange: Exchange,
    ifNot?: Digest,
  ): Promise<StoredManifest | "unchanged" | undefined> => {
    const what = describeExchange(exchange);
    return transport.callWhole(exchange, MAX_MANIFEST_BYTES, (answer) => {
      if (answer.kind === "absent") return undefined;
      if (answer.status === 304 && ifNot !== undefined) return "unchanged";
      if (answer.status !== 200) throw unexpected(what, answer);
      const { bytes } = answer;
      const digest = digestOf(bytes);
      for (const expected of [tagOrDigest, answer.headers.get("docker-content-digest")]) {
        if (isDigest(expected) && expected !== digest) {
          throw new NixcacheError(
            "corrupt",
            `${what}: the manifest's digest is ${digest}, expected ${expected}`,
          );
        }
      }
      if (digest === ifNot) return "unchanged";
      const mediaType = answer.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase() ?? "";
      return { digest, mediaType, bytes };
    });
  };

  const statManifest: Store["statManifest"] = async (tagOrDigest, { signal } = {}) => {
    const url = at(`manifests/${checkTagOrDigest(tagOrDigest)}`);
    const headers = { accept: ACCEPT };
    const head: Exchange = {
      method: "HEAD",
      url,
      access: "pull",
      headers,
      faultAttempts: FEW_ATTEMPTS,
      signal,
    };
    const answer = await orOtherWay(() => transport.call(head), signal, network.signal);
    answer?.close();
    if (answer?.kind === "absent") return undefined;
    const stated = answer?.headers.get("docker-content-digest");
    if (answer?.status === 200 && isDigest(stated)) return stated;
    // Without the header, or in some other way, such as a 403 that has no body to say whether it is a rate limit.
    const manifest = await readManifest(tagOrDigest, { signal });
    return typeof manifest === "object" ? manifest.digest : undefined;
  };

  /** One PUT, under the retry policy. What was refused may have been for its types, so that is handed back. */
  const put = async (
    tagOrDigest: string,
    mediaType: string,
    bytes: Uint8Array,
    { signal, faultAttempts }: PutOptions,
  ): Promise<Digest | BlobsMissing | Refused> => {
    const exchange: Exchange = {
      method: "PUT",
      url: at(`manifests/${checkTagOrDigest(tagOrDigest)}`),
      access: "push",
      headers: { "content-type": mediaType },
      body: () => ({ content: bytes, size: bytes.length }),
      accept: [400, 404, 405, 415, 422],
      acceptCodes: BLOB_CODES,
      faultAttempts,
      signal,
    };
    const what = describeExchange(exchange);
    let answer: Answer;
    try {
      answer = await transport.call(exchange);
    } catch (error) {
      throwIfAborted(signal, network.signal);
      const status = lastAnswer(error)?.status;
      if (!(error instanceof NixcacheError) || (error.code === "unreachable" && !isFault(status)))
        throw error;
      return missingAfter(status, mediaType, bytes, { refused: error }, signal);
    }
    answer.close();
    if (answer.kind === "ok" && answer.status < 300) {
      const digest = digestOf(bytes);
      const stated = answer.headers.get("docker-content-digest");
      if (isDigest(stated) && stated !== digest) {
        throw new NixcacheError("protocol", `${what}: stored with the digest ${stated}, expected ${digest}`);
      }
      return digest;
    }
    const missing = answer.errors.filter(({ code }) => BLOB_CODES.includes(code));
    if (missing.length > 0) return { blobsMissing: true, digests: digestsIn(missing) };
    const refused = { refused: unexpected(what, answer) };
    const isNameUnknown = answer.errors.some(({ code }) => code === "NAME_UNKNOWN");
    return isNameUnknown ? refused : missingAfter(answer.status, mediaType, bytes, refused, signal);
  };

  /**
   * Why a manifest was refused: asks for the blobs that it names, as not every registry says that it lacks one. zot
   * answers 400 MANIFEST_INVALID, Gitea panics (500).
   */
  const missingAfter = async (
    status: number | undefined,
    mediaType: string,
    bytes: Uint8Array,
    refused: Refused,
    signal: AbortSignal | undefined,
  ): Promise<BlobsMissing | Refused> => {
    const mayLack = status !== undefined && (MAY_LACK_BLOBS.includes(status) || isFault(status));
    if (!mayLack || mediaType !== MEDIA_TYPE_MANIFEST) return refused;
    const { config, layers } = decodeManifest(bytes, "manifest to write");
    const named = [...new Set([config, ...layers].map(({ digest }) => digest))];
    try {
      const sizes = await mapConcurrently(named, HEADS_AT_ONCE, (digest) => statBlob(digest, { signal }));
      const digests = named.filter((_, i) => sizes[i] === undefined);
      return digests.length > 0 ? { blobsMissing: true, digests, inferred: true } : refused;
    } catch (error) {
      throwIfAborted(signal, network.signal);
      // Whatever is wrong now, the refusal came first.
      if (error instanceof NixcacheError) return refused;
      throw error;
    }
  };

  const writeManifest: Store["writeManifest"] = async (tagOrDigest, mediaType, bytes, call = {}) => {
    const plain = mediaType === MEDIA_TYPE_MANIFEST ? plainVariant(bytes) : undefined;
    let first: NixcacheError | undefined;
    if (plain === undefined || !imageConfigs) {
      const result = await put(tagOrDigest, mediaType, bytes, call);
      if (typeof result === "string" || "blobsMissing" in result) return result;
      if (plain === undefined) throw result.refused;
      first = result.refused;
    }
    try {
      const second = await putPlain(tagOrDigest, plain, call);
      imageConfigs = true;
      return second;
    } catch (error) {
      throwIfAborted(call.signal, network.signal);
      if (first === undefined || !(error instanceof NixcacheError)) throw error;
      throw first;
    }
  };

  const putPlain = async (
    tagOrDigest: string,
    plain: Uint8Array,
    call: PutOptions,
  ): Promise<Digest | BlobsMissing> => {
    await uploadBlob(
      context,
      { digest: IMAGE_CONFIG.digest, size: IMAGE_CONFIG.size, content: IMAGE_CONFIG_BYTES },
      call,
    );
    // Other bytes have another digest.
    const reference = isTag(tagOrDigest) ? tagOrDigest : digestOf(plain);
    const result = await put(reference, MEDIA_TYPE_MANIFEST, plain, call);
    if (typeof result !== "string" && "refused" in result) throw result.refused;
    return result;
  };

  const deleteManifest: Store["deleteManifest"] = async (digest, { signal, faultAttempts } = {}) => {
    const exchange = {
      method: "DELETE",
      url: at(`manifests/${digest}`),
      access: "delete",
      accept: [400, 403, 405, 501],
      faultAttempts: faultAttempts ?? FEW_ATTEMPTS,
      signal,
    } as const;
    let answer: Answer;
    try {
      answer = await transport.call(exchange);
    } catch (error) {
      throwIfAborted(signal, network.signal);
      // A realm that gives no token for deleting says the same as a 403.
      if (error instanceof NixcacheError && error.code === "denied")
        return { refused: error.message, everything: true };
      if (isOddAnswer(error)) return oddDelete(error);
      // A limit of requests that does not end: the next run goes on.
      if (error instanceof NixcacheError && lastAnswer(error) !== undefined)
        return { refused: error.message, everything: true };
      throw error;
    }
    answer.close();
    if (answer.kind === "absent") return false;
    if (answer.kind === "ok" && answer.status < 300) {
      oddDeletes = 0;
      return true;
    }
    // zot's 400 in a repository that it does not know.
    const isNameUnknown = answer.errors.some(({ code }) => code === "NAME_UNKNOWN");
    if (answer.status === 400 && isNameUnknown) return false;
    const unsupported = answer.errors.some(({ code }) => code === "UNSUPPORTED" || code === "DENIED");
    const refused = unexpected(describeExchange(exchange), answer);
    if (unsupported || [403, 405, 501].includes(answer.status))
      return { refused: refused.message, everything: true };
    return oddDelete(refused);
  };

  /** May be about this manifest alone; several in a row are about all. */
  const oddDelete = ({ message }: NixcacheError) => {
    return { refused: message, everything: ++oddDeletes >= ODD_DELETES };
  };

  return { readManifest, statManifest, writeManifest, deleteManifest };
}

/** The same manifest without what some registries refuse; undefined when it has none of that. */
function plainVariant(bytes: Uint8Array): Uint8Array | undefined {
  const manifest = decodeManifest(bytes, "manifest to write");
  if (manifest.artifactType === undefined && manifest.config.mediaType === MEDIA_TYPE_IMAGE_CONFIG)
    return undefined;
  return encodeManifest(withoutArtifactType(manifest));
}

/** Registries put the digest into `detail`, as a text or within an object, or only into the message. */
function digestsIn(errors: readonly RegistryError[]): Digest[] {
  // `preview`, as what is nested too deeply cannot be written; an answer with errors has 64 KiB at most.
  const text = errors.map(({ detail, message }) => preview([detail, message], 128 * 1024)).join();
  return [...new Set(text.match(/sha256:[0-9a-f]{64}(?![0-9a-f])/g) ?? [])].filter(isDigest);
}
