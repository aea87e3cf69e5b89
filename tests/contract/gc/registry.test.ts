/** Collecting garbage at the real docker-registry, and what its own collector then leaves on the disk. */
import { describe, expect, test } from "bun:test";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { digestHex } from "../../../src/oci/digest.ts";
import { namedDigests, openCacheStore } from "../../support/audit.ts";
import { DAY, HOUR, STRETCH_POLICY, Stretch } from "../../support/gc-stretch.ts";
import { blobsOnDisk, hasRegistry, withRegistry } from "../../support/registry.ts";

const START = Date.UTC(2026, 0, 1);

describe.skipIf(!hasRegistry())("gc at docker-registry", () => {
  test("keeps what the policy promises, and the disk holds what live generations name and no more", () =>
    withRegistry(async (registry) => {
      const store = openCacheStore(`${registry.host}/owner/repo/nix-cache`);
      using stretch = new Stretch(store, START);
      await stretch.run(14, async () => {
        await stretch.collect();
        await registry.collectGarbage({ untagged: true });
      });
      await stretch.collect();
      stretch.host.time += 27 * HOUR;
      const { freed } = await collectGarbage(stretch.collector, { ...STRETCH_POLICY, retentionMs: 60 * DAY });
      expect(freed?.gone).toBeGreaterThan(0);
      expect(freed?.refused).toEqual([]);
      await registry.collectGarbage({ untagged: true });
      await stretch.check();
      const named = [...(await namedDigests(store))].map(digestHex).sort();
      expect(await blobsOnDisk(registry)).toEqual(named);
    }));

  test("that allows no deletions: generations end all the same, and nothing promised is lost", () =>
    withRegistry(
      async (registry) => {
        const store = openCacheStore(`${registry.host}/owner/repo/nix-cache`);
        using stretch = new Stretch(store, START);
        await stretch.run(14);
        stretch.host.time += 27 * HOUR;
        const { freed } = await stretch.collect();
        expect(freed?.gone).toBe(0);
        expect(freed?.refused.length).toBeGreaterThan(10);
        expect(freed?.refused[0]?.reason).toContain("405");
        expect(await stretch.alive()).toEqual(stretch.promised().sort());
        await registry.collectGarbage();
        await stretch.check();
      },
      { deletion: false },
    ));
});
