/** Publishing with the compiled nixcache, and what it cost. */
import type { FarProxy } from "../tests/support/far-proxy.ts";
import { storeVariables } from "../tests/support/substitute.ts";
import { type Bench, makeFolder } from "./bench.ts";
import type { Paths } from "./paths.ts";
import type { Sample } from "./row.ts";

/** With a new local index, as on a machine that CI has just started. @throws when it fails */
export async function publish(bench: Bench, { nix, root }: Paths, cache: string): Promise<Sample> {
  const key = bench.cli.path("bench.key");
  await bench.once("signing key", async () => {
    await bench.cli.run(["keygen", "bench-1", key, bench.cli.path("bench.public")]);
  });
  const args = ["publish", root, "--cache", cache, "--upstream", "", "--signing-key-file", key];
  const env = { ...storeVariables(nix), NIXCACHE_INDEX_DIR: await makeFolder(bench, "publish") };
  const begun = performance.now();
  const { code, stderr, peakRss } = await bench.cli.run(args, { env });
  const seconds = (performance.now() - begun) / 1000;
  if (code !== 0) throw new Error(`publish: status ${code}\n${stderr}`);
  return { seconds, rss: peakRss };
}

/** What the registry behind a proxy was asked for. */
export function countRequests({ requests }: FarProxy): Sample {
  const writes = requests.filter(({ method }) => !["GET", "HEAD"].includes(method));
  return { requests: requests.length, writes: writes.length };
}
