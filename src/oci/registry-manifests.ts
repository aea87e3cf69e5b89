/**
 * Manifests of a registry repository.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#pulling-manifests
 */
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
import { checkTagOrDigest, isTag } from "./reference.ts";
import type { RegistryContext } from "./registry-context.ts";
import type { RegistryError } from "./retry.ts";
import type { BlobsMissing, CallOptions, Store } from "./store.ts";
import { type Answer, unexpected } from "./transport.ts";
import { uploadBlob } from "./upload.ts";

/** What registries may answer with under a tag; ours are all OCI manifests. */
const ACCEPT = [
  MEDIA_TYPE_MANIFEST,
  MEDIA_TYPE_INDEX,
  "application/vnd.docker.distribution.manifest.v2+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
].join(", ");

type ManifestMethods = Pick<Store, "readManifest" | "statManifest" | "writeManifest" | "deleteManifest">;

export function registryManifests(context: RegistryContext): ManifestMethods {
  const { transport, at } = context;
  /** Set once the registry has refused a custom artifact type and taken an image configuration. */
  let imageConfigs = false;

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
    const answer = await transport.call({
      method: "HEAD",
      url,
      access: "pull",
      headers: { accept: ACCEPT },
      accept: [403],
      signal,
    });
    answer.close();
    if (answer.kind === "absent") return undefined;
    const stated = answer.headers.get("docker-content-digest");
    if (answer.status === 200 && isDigest(stated)) return stated;
    // Without the header, or a 403 that has no body to say whether it is a rate limit.
    const manifest = await readManifest(tagOrDigest, { signal });
    return typeof manifest === "object" ? manifest.digest : undefined;
  };

  /** One PUT, under the retry policy. The failed answer when it may be about artifact types. */
  const put = async (
    tagOrDigest: string,
    mediaType: string,
    bytes: Uint8Array,
    { signal }: CallOptions,
  ): Promise<Digest | BlobsMissing | { readonly refused: NixcacheError }> => {
    const exchange: Exchange = {
      method: "PUT",
      url: at(`manifests/${checkTagOrDigest(tagOrDigest)}`),
      access: "push",
      headers: { "content-type": mediaType },
      body: () => ({ content: bytes, size: bytes.length }),
      accept: [400, 404, 405, 415],
      signal,
    };
    const answer = await transport.call(exchange);
    answer.close();
    const what = describeExchange(exchange);
    if (answer.kind === "ok" && answer.status < 300) {
      const digest = digestOf(bytes);
      const stated = answer.headers.get("docker-content-digest");
      if (isDigest(stated) && stated !== digest) {
        throw new NixcacheError("protocol", `${what}: stored with the digest ${stated}, expected ${digest}`);
      }
      return digest;
    }
    const missing = answer.errors.filter(
      ({ code }) => code === "MANIFEST_BLOB_UNKNOWN" || code === "BLOB_UNKNOWN",
    );
    if (missing.length > 0) return { blobsMissing: true, digests: digestsIn(missing) };
    const refused = unexpected(what, answer);
    if (answer.status === 404 || answer.kind === "ok") throw refused;
    return { refused };
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
    await uploadBlob(
      context,
      { digest: IMAGE_CONFIG.digest, size: IMAGE_CONFIG.size, content: IMAGE_CONFIG_BYTES },
      call,
    );
    // Other bytes have another digest.
    const second = await put(isTag(tagOrDigest) ? tagOrDigest : digestOf(plain), mediaType, plain, call);
    if (typeof second !== "string" && "refused" in second) throw first ?? second.refused;
    imageConfigs = true;
    return second;
  };

  const deleteManifest: Store["deleteManifest"] = async (digest, { signal } = {}) => {
    const exchange = {
      method: "DELETE",
      url: at(`manifests/${digest}`),
      access: "delete",
      accept: [400, 403, 405, 501],
      signal,
    } as const;
    let answer: Answer;
    try {
      answer = await transport.call(exchange);
    } catch (error) {
      // A realm that gives no token for deleting says the same as a 403.
      if (error instanceof NixcacheError && error.code === "denied")
        return { refused: error.message, everything: true };
      throw error;
    }
    answer.close();
    if (answer.kind === "absent") return false;
    if (answer.kind === "ok" && answer.status < 300) return true;
    const unsupported = answer.errors.some(({ code }) => code === "UNSUPPORTED" || code === "DENIED");
    const refused = unexpected(describeExchange(exchange), answer);
    if (unsupported || [403, 405, 501].includes(answer.status))
      return { refused: refused.message, everything: true };
    throw refused;
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
