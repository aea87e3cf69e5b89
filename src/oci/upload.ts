/**
 * Uploading a blob: POST for a session, then one PUT with the whole content. The way that works everywhere:
 * GHCR refuses ranged PATCH above 4 MiB.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#post-then-put
 */
import { type FileHandle, open } from "node:fs/promises";
import { messageOf, NixcacheError } from "../errors.ts";
import { resolveLocation } from "../network/egress.ts";
import { NO_PLACE_HINT, NO_UPLOADS, readOnlyError } from "./denied.ts";
import { type Digest, digestOf } from "./digest.ts";
import { describeExchange, type UploadBody } from "./hop.ts";
import { unlessThrown } from "./layout-files.ts";
import type { RegistryContext } from "./registry-context.ts";
import { TransientFailure, withRetry } from "./retry.ts";
import type { BlobSource, CallOptions } from "./store.ts";
import { unexpected } from "./transport.ts";

/** Bytes handed over at a time: small enough for slow lines to move one within the stall time-out. */
const CHUNK_BYTES = 256 * 1024;

/**
 * Uploads a blob; every try starts at the POST and reads the source from its beginning. Memory: one chunk and
 * what the network stack buffers, whatever the size.
 * @throws `corrupt` when the source is not what it says; `filesystem`, `denied`, `unreachable`, `protocol`.
 */
export async function uploadBlob(
  { reference, transport, policy, network, at }: RegistryContext,
  source: BlobSource,
  options: CallOptions,
): Promise<void> {
  const { signal } = options;
  let isChecked = false;
  await withRetry(
    policy,
    network,
    async () => {
      // A session of an earlier try may be half filled or gone.
      const post = {
        method: "POST",
        url: at("blobs/uploads/"),
        access: "push",
        signal,
        headers: { "content-length": "0" },
        accept: NO_UPLOADS,
      } as const;
      const started = await transport.send(post);
      started.close();
      if (NO_UPLOADS.includes(started.status)) throw readOnlyError(reference, started.status);
      const location = started.headers.get("location");
      if (started.kind !== "ok" || location === null)
        throw unexpected(describeExchange(post), started, NO_PLACE_HINT);
      const url = withDigest(resolveLocation(started.url, location, describeExchange(post)), source.digest);
      const opened = await openSource(source);
      try {
        const put = {
          method: "PUT",
          url,
          access: "push",
          signal,
          headers: { "content-type": "application/octet-stream" },
          body: opened.body,
          accept: [400, 404, 416],
        } as const;
        const done = await transport.send(put);
        done.close();
        if (done.kind === "ok" && done.status < 300) return;
        if (done.errors.some(({ code }) => code === "DIGEST_INVALID" || code === "SIZE_INVALID")) {
          throw new NixcacheError(
            "corrupt",
            `upload ${source.digest}: the registry found other bytes than announced`,
          );
        }
        const error = unexpected(describeExchange(put), done);
        // The session is gone, whatever the registry calls that, or it holds bytes of an earlier try.
        throw done.kind === "absent" || done.status === 416 ? new TransientFailure(error) : error;
      } catch (error) {
        // A source that cannot be read breaks the request, which then looks like the network's fault.
        const failure = opened.failure() ?? error;
        // Registries have several names for wrong bytes, some of which promise that another try might do.
        const isUnclear =
          failure instanceof TransientFailure ||
          (failure instanceof NixcacheError && failure.code === "protocol");
        if (isUnclear && !isChecked) {
          isChecked = true;
          await opened.checkContent();
        }
        throw failure;
      } finally {
        await opened.close();
      }
    },
    signal,
  );
}

/** Location's own query stays as it is, byte by byte: it may be signed. */
function withDigest(location: URL, digest: string): URL {
  const url = new URL(location);
  url.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return url;
}

interface OpenedSource {
  readonly body: () => UploadBody;
  /** Why the source could not be read. */
  readonly failure: () => NixcacheError | undefined;
  /** @throws `corrupt` when the source has another digest than it says. */
  readonly checkContent: () => Promise<void>;
  readonly close: () => Promise<void>;
}

async function openSource(source: BlobSource): Promise<OpenedSource> {
  const { content, size, digest } = source;
  if (content instanceof Uint8Array) {
    if (content.length !== size) throw wrongSize(digest, content.length, size);
    return {
      body: () => ({ content, size }),
      failure: () => undefined,
      checkContent: async () => checkDigest(digest, digestOf(content), "the source"),
      close: async () => {},
    };
  }
  const { file, foreign } = content;
  let handle: FileHandle;
  try {
    handle = await open(file, "r");
  } catch (cause) {
    throw new NixcacheError("filesystem", `upload ${digest}: cannot open ${file} (${messageOf(cause)})`, {
      cause,
    });
  }
  let failure: NixcacheError | undefined;
  await unlessThrown(handle, async () => {
    const found = (await handle.stat()).size;
    if (found !== size) throw wrongSize(digest, found, size);
  });
  const body = (): UploadBody => {
    let offset = 0;
    let cancelled = false;
    // Whoever made it has hashed it; what was somebody else's may have changed since.
    const hasher = foreign ? new Bun.CryptoHasher("sha256") : undefined;
    let moved: (bytes: number) => void = () => {};
    const stream = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          if (offset === size) {
            controller.close();
            return;
          }
          try {
            const chunk = new Uint8Array(Math.min(CHUNK_BYTES, size - offset));
            const { bytesRead } = await handle.read(chunk, 0, chunk.length, offset);
            if (bytesRead === 0) throw wrongSize(digest, offset, size);
            // The request broke meanwhile: that is no fault of the source, and nobody takes the bytes.
            if (cancelled) return;
            offset += bytesRead;
            const piece = bytesRead === chunk.length ? chunk : chunk.subarray(0, bytesRead);
            hasher?.update(piece);
            if (hasher && offset === size) checkDigest(digest, digestFrom(hasher), file);
            moved(bytesRead);
            controller.enqueue(piece);
          } catch (cause) {
            if (cancelled) return;
            failure =
              cause instanceof NixcacheError
                ? cause
                : new NixcacheError(
                    "filesystem",
                    `upload ${digest}: cannot read ${file} (${messageOf(cause)})`,
                    { cause },
                  );
            controller.error(failure);
          }
        },
        cancel() {
          cancelled = true;
        },
      },
      { highWaterMark: 0 },
    );
    return { content: stream, size, onMove: (callback) => (moved = callback) };
  };
  const checkContent = async (): Promise<void> => {
    const hasher = new Bun.CryptoHasher("sha256");
    const chunks = handle.createReadStream({ start: 0, autoClose: false, highWaterMark: CHUNK_BYTES });
    for await (const chunk of chunks) hasher.update(chunk);
    checkDigest(digest, digestFrom(hasher), file);
  };
  return { body, failure: () => failure, checkContent, close: () => handle.close() };
}

function digestFrom(hasher: Bun.CryptoHasher): Digest {
  return `sha256:${hasher.digest("hex")}`;
}

function checkDigest(expected: Digest, found: Digest, what: string): void {
  if (found === expected) return;
  throw new NixcacheError("corrupt", `upload ${expected}: ${what} has the digest ${found}`);
}

function wrongSize(digest: string, found: number, expected: number): NixcacheError {
  return new NixcacheError(
    "corrupt",
    `upload ${digest}: the source has ${found} bytes, expected ${expected}`,
  );
}
