/** 2,000 small paths into an empty store by the real Nix, the registry 50 ms away, beside nginx as far away. */
import { startFarProxy } from "../../tests/support/far-proxy.ts";
import { startNginx } from "../../tests/support/nginx.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { makeFolder } from "../bench.ts";
import { smallPaths } from "../paths.ts";
import { countRequests, publish } from "../publishing.ts";
import { of, type Row } from "../row.ts";
import { refreshed } from "../served.ts";
import { ROUND_TRIP_MS } from "./publish-counts.ts";

export const closure: Row = {
  name: "closure",
  parts: ["nix", "registry", "nginx"],
  // Behind nginx each path waits for two round trips.
  mostRounds: 2,
  async open(bench) {
    const paths = await smallPaths(bench);
    const { nix, root } = paths;
    const registry = bench.use(await startRegistry());
    await publish(bench, paths, `${registry.host}/closure`);
    const far = bench.use(await startFarProxy({ target: registry.host, roundTripMs: ROUND_TRIP_MS }));

    const files = await makeFolder(bench, "closure");
    await nix.run("nix", ["copy", "--to", `file://${files}?compression=zstd`, root]);
    const nginx = bench.use(await startNginx({ root: files, fast: true }));
    const host = new URL(nginx.url).host;
    const farNginx = bench.use(await startFarProxy({ target: host, roundTripMs: ROUND_TRIP_MS }));

    const copy = async (url: string): Promise<number> => {
      const store = await nix.emptyStore();
      // Nix remembers what a cache had.
      const env = { NIX_REMOTE: store, XDG_CACHE_HOME: `${store}-cache` };
      const begun = performance.now();
      await nix.run("nix", ["copy", "--from", url, "--no-check-sigs", root], { env });
      return (performance.now() - begun) / 1000;
    };
    return {
      contenders: {
        nginx: async () => ({ seconds: await copy(farNginx.url) }),
        nixcache: async () => {
          far.requests.length = 0;
          const env = { NIXCACHE_INDEX_DIR: await makeFolder(bench, "closure-index") };
          const args = ["--cache", `${far.host}/closure`, "--upstream", ""];
          const server = await bench.cli.serve(args, { env });
          await refreshed(server);
          const seconds = await copy(server.url);
          const rss = server.peakRss();
          await server.stop();
          return { seconds, rss, ...countRequests(far) };
        },
        /** No network at all: what Nix itself needs. */
        folder: async () => ({ seconds: await copy(`file://${files}`) }),
      },
      goals: [
        {
          ...{ what: "2,000 small paths, 50 ms away, of nginx as far", unit: "×", target: { atLeast: 2 } },
          figure: (round) => of(round, "nginx", "seconds") / of(round, "nixcache", "seconds"),
        },
        {
          ...{ what: "2,000 small paths, from the registry", unit: "requests", target: { atMost: 40 } },
          figure: (round) => of(round, "nixcache", "requests"),
        },
        {
          ...{ what: "2,000 small paths, of Nix with the files on its disk", unit: "×" },
          figure: (round) => of(round, "folder", "seconds") / of(round, "nixcache", "seconds"),
        },
      ],
    };
  },
};
