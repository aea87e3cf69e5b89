/** From starting serve to its first narinfo: with no index at all, from a registry. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { MEDIA_TYPE_MANIFEST } from "../../src/oci/manifest.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { type Bench, makeFolder, time } from "../bench.ts";
import { benchStoreHash, writeCache } from "../cache.ts";
import { of, type Row, type Sample } from "../row.ts";
import { writableStore } from "../served.ts";

export const start: Row = {
  name: "start",
  parts: ["registry", "curl", "zstd"],
  async open(bench) {
    const entries = bench.size(100_000, 20_000);
    const registry = bench.use(await startRegistry());
    await writeCache(writableStore(`${registry.host}/start`), { entries });
    const root = await (
      await fetch(`http://${registry.host}/v2/start/manifests/nixcache-index`, {
        headers: { accept: MEDIA_TYPE_MANIFEST },
      })
    ).json();
    const layers = (root as { layers: { digest: string }[] }).layers.map(({ digest }) => digest);

    return {
      contenders: {
        cold: async () => {
          const indexDirectory = await makeFolder(bench, "cold");
          const sample = await firstNarinfo(bench, [`${registry.host}/start`, indexDirectory], entries);
          // What one round has left for the disk to write would slow the next one.
          await rm(indexDirectory, { recursive: true });
          return sample;
        },
        /** The same bytes, by the commands that a person would use. */
        curl: async () => {
          const folder = await makeFolder(bench, "curl");
          let seconds = 0;
          const get = async (path: string, file: string) => {
            const url = `http://${registry.host}/v2/start/${path}`;
            seconds += (
              await time([
                "curl",
                "-sf",
                "-H",
                `accept: ${MEDIA_TYPE_MANIFEST}`,
                "-o",
                join(folder, file),
                url,
              ])
            ).seconds;
          };
          await get("tags/list", "tags");
          await get("manifests/nixcache-index", "root");
          for (const [place, digest] of layers.entries()) {
            const file = `${place}.zst`;
            await get(`blobs/${digest}`, file);
            const unzstd = ["zstd", "-dq", join(folder, file), "-o", join(folder, `${place}`)];
            seconds += (await time(unzstd)).seconds;
          }
          await rm(folder, { recursive: true });
          return { seconds };
        },
      },
      goals: [
        {
          ...{
            what: "cold, 100,000 from a registry, of curl and unzstd",
            unit: "×",
            target: { atMost: 1.5 },
          },
          figure: (round) => of(round, "cold", "seconds") / of(round, "curl", "seconds"),
        },
      ],
    };
  },
};

/** Seconds from starting serve until it has answered a narinfo. */
export async function firstNarinfo(
  bench: Bench,
  [reference, indexDirectory]: readonly [string, string],
  entries: number,
): Promise<Sample> {
  const path = `/${benchStoreHash(Math.floor(entries / 2))}.narinfo`;
  const begun = performance.now();
  const args = ["--cache", reference, "--upstream", ""];
  const server = await bench.cli.serve(args, { env: { NIXCACHE_INDEX_DIR: indexDirectory } });
  const listening = performance.now() - begun;
  try {
    for (;;) {
      const answer = await server.get(path);
      await answer.text();
      const ms = performance.now() - begun;
      if (answer.status === 200) return { seconds: ms / 1000, listening: listening / 1000 };
      if (ms > 120_000) throw new Error(`no narinfo within two minutes: ${server.log()}`);
      // Asking more often would take from the server what is measured.
      await Bun.sleep(5);
    }
  } finally {
    await server.stop();
  }
}
