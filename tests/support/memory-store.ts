/**
 * A store in memory, for tests of the storage protocol: it counts requests, can keep new tags out of its list
 * for a while, can accept manifests that name missing blobs, and can fail or stop at any call.
 * A double of what `registry.ts` and `layout.ts` are; the contract suite runs on it too.
 */
import { NixcacheError } from "../../src/errors.ts";
import { type Digest, digestOf } from "../../src/oci/digest.ts";
import { fileError } from "../../src/oci/layout-files.ts";
import { decodeManifest } from "../../src/oci/manifest.ts";
import type { BlobSource, Store, StoredManifest } from "../../src/oci/store.ts";

export class MemoryStore implements Store {
  readonly name = "memory";
  strictness: Store["strictness"] = "strict";
  /** Whether a manifest that names a missing blob is refused. */
  refusesMissing = true;
  /** Tags that the list does not show yet. */
  readonly hidden = new Set<string>();
  /** Called before each request with its method name and subject; may throw or wait. */
  before: (call: string, subject: string) => Promise<void> | void = () => {};
  readonly calls: string[] = [];
  readonly blobs = new Map<Digest, Uint8Array>();
  readonly manifests = new Map<Digest, StoredManifest>();
  readonly tags = new Map<string, Digest>();
  /** Sizes of blobs written, each time they were written. */
  readonly written: Digest[] = [];

  async #call(name: string, subject = ""): Promise<void> {
    this.calls.push(`${name} ${subject}`.trim());
    await this.before(name, subject);
  }

  async statBlob(digest: Digest): Promise<number | undefined> {
    await this.#call("statBlob", digest);
    return this.blobs.get(digest)?.length;
  }

  async readBlob(
    digest: Digest,
    options: { range?: { offset: number; length: number } | undefined } = {},
  ): Promise<ReadableStream<Uint8Array> | undefined> {
    await this.#call("readBlob", digest);
    const bytes = this.blobs.get(digest);
    if (bytes === undefined) return undefined;
    const { offset, length } = options.range ?? { offset: 0, length: bytes.length };
    return new Blob([bytes.slice(offset, offset + length)]).stream();
  }

  async writeBlob(source: BlobSource): Promise<void> {
    await this.#call("writeBlob", source.digest);
    const bytes =
      "file" in source.content
        ? await readFile(source.content.file)
        : new Uint8Array(source.content as Uint8Array);
    if (digestOf(bytes) !== source.digest || bytes.length !== source.size) {
      throw new NixcacheError("corrupt", `memory: blob ${source.digest} has other bytes`);
    }
    this.written.push(source.digest);
    this.blobs.set(source.digest, bytes);
  }

  async readManifest(
    reference: string,
    options: { ifNot?: Digest | undefined } = {},
  ): Promise<StoredManifest | "unchanged" | undefined> {
    await this.#call("readManifest", reference);
    const digest = this.tags.get(reference) ?? (reference as Digest);
    if (options.ifNot === digest) return "unchanged";
    return this.manifests.get(digest);
  }

  async statManifest(reference: string): Promise<Digest | undefined> {
    await this.#call("statManifest", reference);
    const digest = this.tags.get(reference) ?? (reference as Digest);
    return this.manifests.has(digest) ? digest : undefined;
  }

  async writeManifest(reference: string, mediaType: string, bytes: Uint8Array) {
    await this.#call("writeManifest", reference);
    const { config, layers } = decodeManifest(bytes, reference);
    const missing = [config, ...layers]
      .map(({ digest }) => digest)
      .filter((digest) => !this.blobs.has(digest));
    if (missing.length > 0 && this.refusesMissing) return { blobsMissing: true as const, digests: missing };
    const digest = digestOf(bytes);
    this.manifests.set(digest, { digest, mediaType, bytes });
    if (!reference.startsWith("sha256:")) this.tags.set(reference, digest);
    return digest;
  }

  async deleteManifest(digest: Digest): Promise<boolean> {
    await this.#call("deleteManifest", digest);
    for (const [tag, target] of this.tags) if (target === digest) this.tags.delete(tag);
    return this.manifests.delete(digest);
  }

  async listTags(): Promise<string[]> {
    await this.#call("listTags");
    return [...this.tags.keys()].filter((tag) => !this.hidden.has(tag));
  }

  /** What a registry's garbage collector does: removes blobs that no manifest names. */
  collect(): void {
    const named = new Set(
      [...this.manifests.values()].flatMap(({ bytes }) => {
        const { config, layers } = decodeManifest(bytes, "memory");
        return [config, ...layers].map(({ digest }) => digest);
      }),
    );
    for (const digest of this.blobs.keys()) if (!named.has(digest)) this.blobs.delete(digest);
  }

  tagsOf(prefix: string): string[] {
    return [...this.tags.keys()].filter((tag) => tag.startsWith(prefix)).sort();
  }
}

/** The same cache once more: what is done to it does nothing to the other. */
export function cloneStore({ blobs, manifests, tags }: MemoryStore): MemoryStore {
  const store = new MemoryStore();
  for (const [digest, bytes] of blobs) store.blobs.set(digest, bytes);
  for (const [digest, manifest] of manifests) store.manifests.set(digest, manifest);
  for (const [tag, digest] of tags) store.tags.set(tag, digest);
  return store;
}

/** As the stores read it. */
async function readFile(file: string): Promise<Uint8Array> {
  try {
    return await Bun.file(file).bytes();
  } catch (error) {
    throw fileError("read", file, error);
  }
}

/** A store with some methods of its own; those of a class would not survive being spread. */
export function withMethods(store: MemoryStore, methods: Partial<Store>): Store {
  return new Proxy<Store>(store, {
    get(target, name) {
      if (Object.hasOwn(methods, name)) return Reflect.get(methods, name);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}
