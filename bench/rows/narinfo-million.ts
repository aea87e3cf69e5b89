/** Narinfos of a million entries beside those of ten thousand, and the memory that they take. */
import { residentBytes } from "../bench.ts";
import { of, type Row } from "../row.ts";
import {
  benchStoreHash,
  cacheFolder,
  refreshed,
  serveFolder,
  someIndexes,
  stopped,
  writePaths,
} from "../served.ts";
import { wrk } from "../wrk.ts";

/** More than any page cache of SQLite's holds, and few enough for wrk to have at hand. */
const ASKED = 100_000;

export const narinfoMillion: Row = {
  name: "narinfo-million",
  parts: ["wrk"],
  async open(bench) {
    const sizes = { few: 10_000, many: bench.size(1_000_000, 50_000) };
    const open = async (entries: number) => {
      const server = await serveFolder(bench, await cacheFolder(bench, entries));
      bench.use(stopped(server));
      await refreshed(server);
      const hashes = someIndexes(entries, ASKED).map(benchStoreHash);
      return { server, paths: await writePaths(bench, `hits-${entries}`, hashes) };
    };
    const few = await open(sizes.few);
    const many = await open(sizes.many);
    const seconds = bench.size(3, 1);
    return {
      contenders: {
        few: () => wrk(bench, few.server.url, few.paths, seconds),
        many: async () => ({
          ...(await wrk(bench, many.server.url, many.paths, seconds)),
          rss: residentBytes(many.server.pid),
        }),
      },
      goals: [
        {
          ...{ what: "hits of 1,000,000, of those of 10,000", unit: "×", target: { atLeast: 0.9 } },
          figure: (round) => of(round, "many", "rate") / of(round, "few", "rate"),
        },
        {
          ...{ what: "RSS at 1,000,000, serving", unit: "MiB", target: { atMost: 150 } },
          figure: (round) => of(round, "many", "rss") / 2 ** 20,
        },
      ],
    };
  },
};
