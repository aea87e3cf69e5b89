/** The contract of stores on Debian's docker-registry, and what is special about a registry. */
import { describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { digestOf } from "../../../src/oci/digest.ts";
import { MEDIA_TYPE_MANIFEST } from "../../../src/oci/manifest.ts";
import { openRegistry } from "../../../src/oci/registry.ts";
import type { Store } from "../../../src/oci/store.ts";
import { hasRegistry, type TestRegistry, withRegistry } from "../../support/registry.ts";
import { bytesOf, manifestOf, randomBytes, realHost, writeBlob, writeTag } from "./helpers.ts";
import { describeStore } from "./store.contract.ts";

const USER = { name: "somebody", password: "p:ss wörd" };

function open({ host }: TestRegistry, password?: string): Store {
  const reference = { kind: "registry", scheme: "http", host, repository: "owner/repo/nix-cache" } as const;
  const credentials = async () =>
    password === undefined ? undefined : ({ kind: "password", username: USER.name, password } as const);
  return openRegistry(reference, { host: realHost, credentials });
}

describe.skipIf(!hasRegistry() && process.env.CI !== "true")("docker-registry", () => {
  describeStore("registry", (body) => withRegistry((registry) => body(() => open(registry))));

  test("asking whether it can be written to leaves no upload", () =>
    withRegistry(async (registry) => {
      await open(registry).checkWrite?.();
      const entries = await readdir(registry.folder, { recursive: true, withFileTypes: true });
      const files = entries
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => `${parentPath}/${name}`);
      // An upload that was cancelled it writes the state of its hash for all the same.
      expect(files.filter((file) => !/\/_uploads\/[^/]+\/hashstates\/sha256\/0$/.test(file))).toEqual([]);
    }));

  test("one that is read-only is told by asking, and by an upload", () =>
    withRegistry(
      async (registry) => {
        const refused = { code: "denied", message: expect.stringContaining("it takes no uploads") };
        await expect(open(registry).checkWrite?.()).rejects.toMatchObject(refused);
        await expect(writeBlob(open(registry), randomBytes(10))).rejects.toMatchObject(refused);
      },
      { readOnly: true },
    ));

  test("the right password opens it, no or a wrong one is denied with a hint", () =>
    withRegistry(
      async (registry) => {
        const store = open(registry, USER.password);
        expect(await store.listTags()).toEqual([]);
        const digest = await writeTag(store, "t", "content");
        expect(await store.statManifest("t")).toBe(digest);

        for (const password of [undefined, "wrong"]) {
          const refused = open(registry, password);
          const error = await refused.listTags().catch((thrown) => thrown);
          expect(error).toMatchObject({ code: "denied" });
          expect(error.hint).toContain(`docker login ${registry.host}`);
          expect(`${error.message} ${error.hint}`).not.toContain("wrong");
          await expect(writeBlob(refused, randomBytes(10))).rejects.toMatchObject({ code: "denied" });
          await expect(refused.checkWrite?.()).rejects.toMatchObject({ code: "denied" });
        }
      },
      { user: USER },
    ));

  test("a registry without deletion refuses, which is no error", () =>
    withRegistry(
      async (registry) => {
        const store = open(registry);
        const digest = await writeTag(store, "t", "content");
        expect(await store.deleteManifest(digest)).toMatchObject({ everything: true });
        expect(await store.listTags()).toEqual(["t"]);
      },
      { deletion: false },
    ));

  test("blobs that a manifest names survive a garbage collection, others do not", () =>
    withRegistry(async (registry) => {
      const store = open(registry);
      const { bytes, layer } = manifestOf("kept");
      await writeTag(store, "kept", "kept");
      const loose = await writeBlob(store, randomBytes(1000));
      const gone = await writeTag(store, "gone", "gone");
      await store.deleteManifest(gone);
      await registry.collectGarbage();
      expect(await store.statBlob(loose)).toBeUndefined();
      expect(await store.listTags()).toEqual(["kept"]);
      const named = [layer, new TextEncoder().encode("{}")];
      for (const blob of named) expect(await store.statBlob(digestOf(blob))).toBe(blob.length);
      expect(await store.writeManifest("again", MEDIA_TYPE_MANIFEST, bytes)).toStartWith("sha256:");
    }));

  test("a blob of another repository is mounted, what that one does not have is not", () =>
    withRegistry(async (registry) => {
      const source = open(registry);
      const bytes = randomBytes(100_000);
      const digest = await writeBlob(source, bytes);
      const reference = {
        kind: "registry",
        scheme: "http",
        host: registry.host,
        repository: "other/cache",
      } as const;
      const target = openRegistry(reference, { host: realHost, mountFrom: "owner/repo/nix-cache" });
      expect(await target.statBlob(digest)).toBeUndefined();
      expect(await target.mountBlob?.(digest)).toBe(true);
      expect(await bytesOf(await target.readBlob(digest))).toEqual(bytes);
      expect(await target.mountBlob?.(digest)).toBe(true);
      expect(await target.mountBlob?.(digestOf("nowhere"))).toBe(false);
      expect(await target.statBlob(digestOf("nowhere"))).toBeUndefined();
      expect(source.mountBlob).toBeUndefined();
    }));

  test("a stopped registry fails within seconds as unreachable, and works again once it is back", () =>
    withRegistry(async (registry) => {
      const store = open(registry);
      const digest = await writeBlob(store, randomBytes(100));
      await registry.stop();
      const started = performance.now();
      await expect(store.statBlob(digest)).rejects.toMatchObject({ code: "unreachable" });
      await expect(store.listTags()).rejects.toMatchObject({ code: "unreachable" });
      // Two calls, each of three tries: 0.5 and 1 s, and half of that again at most. Generous, as machines are slow.
      expect(performance.now() - started).toBeLessThan(30_000);
      await registry.start();
      expect((await bytesOf(await store.readBlob(digest))).length).toBe(100);
    }));
});
