/** A simulated year at the real docker-registry: nothing promised is lost, and nothing else stays. */
import { expect, test } from "bun:test";
import { mapConcurrently } from "../../../src/concurrency.ts";
import { digestHex } from "../../../src/oci/digest.ts";
import type { Store } from "../../../src/oci/store.ts";
import { namedDigests, openCacheStore } from "../../support/audit.ts";
import { HOUR } from "../../support/gc-stretch.ts";
import { BRANCHES, SYSTEMS, YEAR_POLICY, Year } from "../../support/gc-year.ts";
import { describeWith } from "../../support/needs.ts";
import { blobsOnDisk, withRegistry } from "../../support/registry.ts";
import { choices } from "../../support/seed-choices.ts";

const DAYS = 365;
const LINES = BRANCHES.length * SYSTEMS.length;
const RETENTION_DAYS = YEAR_POLICY.retentionMs / (24 * HOUR);

/**
 * Tags at most, where a gc comes through every third week: of each line a generation a day within the retention and
 * since the last gc; what that one ended in four weeks, with its dead tags, which wait for the next; and the root.
 */
const MOST_TAGS = LINES * (RETENTION_DAYS + 21 + 2 * 28) + 1;

describeWith(["registry"], "a year of gc", () => {
  test(
    "keeps what the policy promises, and the disk holds what live generations name and no more",
    () =>
      withRegistry(async (registry) => {
        using year = new Year(
          openCacheStore(`${registry.host}/owner/repo/nix-cache`),
          Date.UTC(2026, 0, 1),
          choices("year"),
        );
        const tags: number[] = [];
        const expectNamed = async () => {
          await registry.collectGarbage({ untagged: true });
          const named = [...(await namedDigests(year.store))].map(digestHex).sort();
          expect(await blobsOnDisk(registry)).toEqual(named);
        };
        for (let day = 0; day < DAYS; day++) {
          await year.day(day, day % 7 === 6);
          if (day % 7 === 6) await expectNamed();
          await year.check();
          tags.push((await year.store.listTags()).length);
        }
        const halves = [tags.slice(60, DAYS / 2), tags.slice(DAYS / 2)].map((half) => Math.max(...half));
        console.log(
          `${JSON.stringify(year.counts)}; tags at most, by halves of the year: ${halves.join(", ")}`,
        );
        expect(Math.max(...tags)).toBeLessThan(MOST_TAGS);
        expect(Math.min(...Object.values(year.counts))).toBeGreaterThan(10);

        // One gc that ends what is over, and one that only deletes what ended.
        await year.collect(false);
        const promised = year.promised();
        year.time += 28 * HOUR;
        await year.collect(false, { ...YEAR_POLICY, retentionMs: 2 * YEAR_POLICY.retentionMs });
        await expectNamed();
        await year.check();
        const left = await tagsThatAreThere(year.store);
        const alive = left.filter((tag) => tag.startsWith("seg-"));
        expect(alive).toEqual(expect.arrayContaining(promised.map((name) => `seg-${name}`)));
        // What a clock within the skew finds just young enough.
        expect(alive.length).toBeLessThanOrEqual(promised.length + LINES);
        expect(left.filter((tag) => tag.startsWith("dead-"))).toEqual([]);
      }),
    1_800_000,
  );
});

/**
 * docker-registry 2.8 ends a deletion half way, with a 500, when another tag is written in that moment: the manifest is
 * gone, and its tags stay in the list for good. They lead nowhere and hold nothing.
 */
async function tagsThatAreThere(store: Store): Promise<string[]> {
  const tags = await store.listTags();
  const digests = await mapConcurrently(tags, 8, (tag) => store.statManifest(tag));
  return tags.filter((_, i) => digests[i] !== undefined);
}
