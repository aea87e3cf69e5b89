/** What a refresh costs: requests and bytes, heads and all, through a proxy that counts. */

import { foldOrWarn } from "../../src/protocol/fold.ts";
import { GenerationWriter } from "../../src/protocol/generation.ts";
import { type FarRequest, startFarProxy } from "../../tests/support/far-proxy.ts";
import { party, testRecord } from "../../tests/support/protocol.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { makeFolder } from "../bench.ts";
import { benchEntry, writeCache } from "../cache.ts";
import { of, type Row, type Sample } from "../row.ts";
import { refreshed, stopped, writableStore } from "../served.ts";

/** New paths of a publish. */
const NEW = 10;

export const refresh: Row = {
  name: "refresh",
  parts: ["registry"],
  async open(bench) {
    const entries = bench.size(100_000, 10_000);
    const registry = bench.use(await startRegistry());
    const reference = `${registry.host}/refresh`;
    await writeCache(writableStore(reference), { entries });
    const publisher = party(writableStore(reference));
    bench.use({ close: async () => publisher[Symbol.dispose]() });
    const proxy = bench.use(await startFarProxy({ target: registry.host }));
    const indexDirectory = await makeFolder(bench, "refresh");
    const args = ["--cache", `${proxy.host}/refresh`, "--upstream", ""];
    const env = { NIXCACHE_INDEX_DIR: indexDirectory };
    const serve = async (ttl: number) => {
      const server = await bench.cli.serve([...args, "--index-ttl", String(ttl)], { env });
      await refreshed(server);
      return server;
    };
    const server = await serve(86_400);
    bench.use(stopped(server));
    let next = entries;

    return {
      contenders: {
        nothing: async () => {
          const server = await serve(1);
          proxy.requests.length = 0;
          // The next one is begun once this one is over.
          while (proxy.requests.length < 2) await Bun.sleep(10);
          const [first] = proxy.requests;
          await server.stop();
          return costOf(first === undefined ? [] : [first]);
        },
        tenNew: async () => {
          const lines = Array.from({ length: NEW }, () => benchEntry(next++));
          const record = testRecord(lines, publisher.host);
          const committed = await new GenerationWriter(publisher, {}).commit(record, lines, []);
          if (!("committed" in committed)) throw new Error("blobs are missing");
          await foldOrWarn(publisher);
          proxy.requests.length = 0;
          await refreshed(server);
          return costOf(proxy.requests.filter(({ path }) => !path.includes("/tags/list")));
        },
      },
      goals: [
        {
          ...{ what: "nothing new", unit: "requests", target: { atMost: 1 } },
          figure: (round) => of(round, "nothing", "requests"),
        },
        {
          ...{ what: "nothing new", unit: "KiB", target: { atMost: 1 } },
          figure: (round) => of(round, "nothing", "bytes") / 1024,
        },
        {
          ...{ what: "10 new paths in 100,000, beside the tag list", unit: "KiB", target: { atMost: 40 } },
          figure: (round) => of(round, "tenNew", "bytes") / 1024,
        },
        {
          ...{ what: "10 new paths in 100,000, beside the tag list", unit: "requests" },
          figure: (round) => of(round, "tenNew", "requests"),
        },
      ],
    };
  },
};

export function costOf(requests: readonly FarRequest[]): Sample {
  const bytes = requests.reduce((sum, { sent, received }) => sum + sent + received, 0);
  return { requests: requests.length, bytes };
}
