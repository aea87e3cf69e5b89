/** gc of a cache that has grown for years: 1,000 generations of 3,000 paths. */
import { expect, test } from "bun:test";
import { openCacheStore } from "../support/audit.ts";
import { withCli } from "../support/cli.ts";
import { DAY } from "../support/gc-stretch.ts";
import { distinctPaths, type ManyOptions, writeManyGenerations } from "../support/many-generations.ts";
import { describeWith } from "../support/needs.ts";
import { withRegistry } from "../support/registry.ts";

const MOST_RSS = 1024 ** 3;

const NOW = Date.now();

const MANY: ManyOptions = {
  generations: 1000,
  folders: 30,
  leaves: 99,
  changes: 30,
  sources: 4,
  // Four a day, the last one two days ago.
  time: (generation) => NOW - 2 * DAY - ((999 - generation) * DAY) / 4,
};

describeWith(["registry"], "gc of 1,000 generations of 3,000 paths", () => {
  test(
    "decides within its memory, from the root and the manifests",
    () =>
      withRegistry((registry) =>
        withCli(async (cli) => {
          const cache = `${registry.host}/owner/repo/nix-cache`;
          await writeManyGenerations(openCacheStore(cache), MANY);
          const start = performance.now();
          const result = await cli.run(["gc", "--cache", cache, "--dry-run", "--json"]);
          const seconds = Math.round((performance.now() - start) / 100) / 10;
          console.log(
            `decided on ${MANY.generations} generations, ${distinctPaths(MANY)} paths, in ${seconds} s and ${Math.round(result.peakRss / 1024 ** 2)} MiB`,
          );
          expect(result.code).toBe(0);
          expect(result.peakRss).toBeLessThan(MOST_RSS);
          const report = JSON.parse(result.stdout) as { decisions: { ends: boolean; rule: string }[] };
          // The retention is 30 days, of which two have gone by; the newest of each source is among those.
          const young = 28 * 4;
          const staying = report.decisions.filter(({ ends }) => !ends).length;
          expect(report.decisions.length).toBe(MANY.generations);
          expect(Math.abs(staying - young)).toBeLessThanOrEqual(1);
          const index = await cli.run(["gc", "--cache", cache, "--dry-run", "--json"]);
          expect(JSON.parse(index.stdout)).toEqual(report);
        }),
      ),
    600_000,
  );
});
