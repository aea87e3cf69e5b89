/** Publishing 200 paths with 70 MB of real files to a registry, beside Nix that copies them into a folder. */
import { startRegistry } from "../../tests/support/registry.ts";
import { makeFolder } from "../bench.ts";
import { realPaths } from "../paths.ts";
import { publish } from "../publishing.ts";
import { of, type Row } from "../row.ts";

export const publishPaths: Row = {
  name: "publish-paths",
  parts: ["nix", "registry"],
  async open(bench) {
    const paths = await realPaths(bench, 200, 70e6);
    const { nix, root } = paths;
    const registry = bench.use(await startRegistry());
    let caches = 0;
    return {
      contenders: {
        nix: async () => {
          const folder = await makeFolder(bench, "nix-copy");
          const begun = performance.now();
          await nix.run("nix", ["copy", "--to", `file://${folder}?compression=zstd`, root]);
          return { seconds: (performance.now() - begun) / 1000 };
        },
        nixcache: () => publish(bench, paths, `${registry.host}/paths-${++caches}`),
      },
      goals: [
        {
          what: "200 paths, 70 MB, to a registry, of nix copy into a folder",
          ...{ unit: "×", target: { atLeast: 1 }, within: 0.6 },
          figure: (round) => of(round, "nix", "seconds") / of(round, "nixcache", "seconds"),
        },
      ],
    };
  },
};
