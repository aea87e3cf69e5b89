/** What publishing 2,000 small paths asks of the registry, and how long it takes when nothing is new. */
import { startFarProxy } from "../../tests/support/far-proxy.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { smallPaths } from "../paths.ts";
import { countRequests, publish } from "../publishing.ts";
import { of, type Row } from "../row.ts";

export const ROUND_TRIP_MS = 50;

export const publishCounts: Row = {
  name: "publish-small",
  parts: ["nix", "registry"],
  async open(bench) {
    const paths = await smallPaths(bench);
    const registry = bench.use(await startRegistry());
    const proxy = bench.use(await startFarProxy({ target: registry.host, roundTripMs: ROUND_TRIP_MS }));
    await publish(bench, paths, `${registry.host}/again`);
    let caches = 0;
    const through = async (name: string) => {
      proxy.requests.length = 0;
      return { ...(await publish(bench, paths, `${proxy.host}/${name}`)), ...countRequests(proxy) };
    };
    return {
      contenders: { all: () => through(`all-${++caches}`), again: () => through("again") },
      goals: [
        {
          ...{ what: "2,000 small paths, writes", unit: "requests", target: { atMost: 60 } },
          figure: (round) => of(round, "all", "writes"),
        },
        {
          ...{ what: "2,000 small paths, nothing new, 50 ms away", unit: "ms", target: { atMost: 1000 } },
          figure: (round) => of(round, "again", "seconds") * 1000,
        },
        {
          ...{ what: "2,000 small paths, nothing new", unit: "requests", target: { atMost: 10 } },
          figure: (round) => of(round, "again", "requests"),
        },
      ],
    };
  },
};
