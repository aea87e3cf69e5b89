/**
 * Other people's tool on our caches: skopeo mirrors them between a folder and a registry, both ways, and every
 * digest stays. No flags are needed but those for plain HTTP.
 */
import { describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLayout } from "../../../src/oci/layout.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { openRegistry } from "../../../src/oci/registry.ts";
import { hasRegistry, withRegistry } from "../../support/registry.ts";
import { bytesOf, manifestOf, readAll, realHost, writeTag } from "./helpers.ts";

const hasParts = hasRegistry() && Bun.which("skopeo") !== null;

describe.skipIf(!hasParts && process.env.CI !== "true")("skopeo", () => {
  const skopeo = async (...args: string[]): Promise<void> => {
    // Debian ships a policy that accepts everything; other machines may have none.
    const child = Bun.spawn(["skopeo", "--insecure-policy", ...args], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const errors = await child.stderr.text();
    if ((await child.exited) !== 0) throw new Error(`skopeo ${args.join(" ")}: ${errors}`);
  };

  const withBoth = (body: (host: string, folder: string) => Promise<void>) =>
    withRegistry(async ({ host }) => {
      const folder = await mkdtemp(join(tmpdir(), "nixcache-test-skopeo-"));
      try {
        await body(host, join(folder, "cache"));
      } finally {
        await rm(folder, { recursive: true });
      }
    });
  const registryAt = (host: string, repository: string) =>
    openRegistry({ kind: "registry", scheme: "http", host, repository }, { host: realHost });

  test("copies from a folder to a registry", () =>
    withBoth(async (host, folder) => {
      const layout = openLayout(folder, { host: realHost });
      const digest = await writeTag(layout, "seg-1", "content");
      await skopeo(
        "copy",
        "--dest-tls-verify=false",
        `oci:${folder}:seg-1`,
        `docker://${host}/a/cache:seg-1`,
      );

      const registry = registryAt(host, "a/cache");
      expect(await registry.listTags()).toEqual(["seg-1"]);
      const manifest = await readAll(registry, "seg-1");
      expect(manifest).toEqual(await readAll(layout, "seg-1"));
      expect(manifest.digest).toBe(digest);
      const layer = decodeManifest(manifest.bytes, "seg-1").layers[0];
      expect(await bytesOf(await registry.readBlob(layer?.digest as never))).toEqual(
        manifestOf("content").layer,
      );
    }));

  test("copies from a registry to a new folder and into one of ours, and we go on from there", () =>
    withBoth(async (host, folder) => {
      const registry = registryAt(host, "a/cache");
      const digest = await writeTag(registry, "seg-1", "content");
      const source = `docker://${host}/a/cache:seg-1`;
      await skopeo("copy", "--src-tls-verify=false", source, `oci:${folder}:seg-1`);
      const layout = openLayout(folder, { host: realHost });
      expect((await readAll(layout, "seg-1")).digest).toBe(digest);

      await writeTag(layout, "seg-2", "of ours");
      await skopeo("copy", "--src-tls-verify=false", source, `oci:${folder}:seg-3`);
      expect((await layout.listTags()).sort()).toEqual(["seg-1", "seg-2", "seg-3"]);
      expect(await layout.statManifest("seg-3")).toBe(digest);
    }));

  test("mirrors a whole repository", () =>
    withBoth(async (host) => {
      const registry = registryAt(host, "a/cache");
      const digests = [await writeTag(registry, "seg-1", "one"), await writeTag(registry, "seg-2", "two")];
      const tls = ["--src-tls-verify=false", "--dest-tls-verify=false"];
      await skopeo(
        "sync",
        "--src",
        "docker",
        "--dest",
        "docker",
        ...tls,
        `${host}/a/cache`,
        `${host}/mirror`,
      );
      const mirror = registryAt(host, "mirror/cache");
      expect([await mirror.statManifest("seg-1"), await mirror.statManifest("seg-2")]).toEqual(digests);
    }));
});
