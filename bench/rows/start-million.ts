/** From starting serve to its first narinfo: with the index of a million entries on disk. */
import { of, type Row } from "../row.ts";
import { cacheFolder } from "../served.ts";
import { firstNarinfo } from "./start.ts";

export const startMillion: Row = {
  name: "start-million",
  parts: [],
  async open(bench) {
    const entries = bench.size(1_000_000, 50_000);
    const { reference, indexDirectory } = await cacheFolder(bench, entries);
    return {
      contenders: { warm: () => firstNarinfo(bench, [reference, indexDirectory], entries) },
      goals: [
        {
          ...{ what: "warm, 1,000,000", unit: "ms", target: { atMost: 150 } },
          figure: (round) => of(round, "warm", "seconds") * 1000,
        },
      ],
    };
  },
};
