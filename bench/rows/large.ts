/** Publishing one NAR of 1 GiB of real files, beside zstd that compresses the same NAR. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { startRegistry } from "../../tests/support/registry.ts";
import { makeFolder, time } from "../bench.ts";
import { largePath } from "../paths.ts";
import { publish } from "../publishing.ts";
import { of, type Row } from "../row.ts";

const MIB = 1024 ** 2;

export const large: Row = {
  name: "large",
  parts: ["nix", "zstd", "registry"],
  async open(bench) {
    const paths = await largePath(bench, bench.size(1024, 128) * MIB);
    const { nix, root } = paths;
    const folder = await makeFolder(bench, "nar");
    const nar = join(folder, "nar");
    await nix.run("sh", ["-c", `nix-store --dump "$1" > "$2"`, "sh", nix.realPath(root), nar]);
    const registry = bench.use(await startRegistry());
    let caches = 0;
    return {
      contenders: {
        zstd: async () => {
          const { seconds } = await time(["zstd", "-3", "-T0", "-qf", nar, "-o", `${nar}.zst`]);
          return { seconds };
        },
        folder: async () => {
          const cache = join(folder, `cache-${++caches}`);
          const sample = await publish(bench, paths, cache);
          await rm(cache, { recursive: true });
          return sample;
        },
        registry: () => publish(bench, paths, `${registry.host}/large-${++caches}`),
      },
      goals: [
        {
          ...{ what: "1 GiB of files into a folder, of zstd -3 -T0", unit: "×", target: { atLeast: 0.85 } },
          figure: (round) => of(round, "zstd", "seconds") / of(round, "folder", "seconds"),
        },
        {
          ...{ what: "the same to docker-registry on this machine", unit: "×" },
          figure: (round) => of(round, "zstd", "seconds") / of(round, "registry", "seconds"),
        },
        {
          ...{ what: "RSS of it", unit: "MiB" },
          figure: (round) => of(round, "folder", "rss") / MIB,
        },
      ],
    };
  },
};
