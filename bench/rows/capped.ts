/** One large NAR where the storage host caps each connection, over one and over the usual number of them. */

import { registryBlob } from "../../tests/support/cache-files.ts";
import { startFaultProxy } from "../../tests/support/fault-proxy.ts";
import { startNginx } from "../../tests/support/nginx.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { makeFolder } from "../bench.ts";
import { of, type Row } from "../row.ts";
import { refreshed, stopped } from "../served.ts";
import { download, publishBlob } from "./nar.ts";

const MIB = 1024 ** 2;

export const capped: Row = {
  name: "capped",
  parts: ["registry", "nginx", "curl"],
  async open(bench) {
    const registry = bench.use(await startRegistry());
    const { file } = await publishBlob(bench, `${registry.host}/capped`, bench.size(200, 60) * MIB);
    const nginx = bench.use(await startNginx({ root: registry.folder, limitRate: "20m" }));
    const storage = (digest: string) =>
      nginx.url + registryBlob(registry.folder, digest).slice(registry.folder.length);
    const proxy = bench.use(await startFaultProxy({ registry: registry.host, storage }));
    const serve = async (connections: number) => {
      const env = { NIXCACHE_INDEX_DIR: await makeFolder(bench, "capped") };
      const args = ["--cache", `${proxy.host}/capped`, "--connections", String(connections)];
      const server = await bench.cli.serve([...args, "--upstream", ""], { env });
      bench.use(stopped(server));
      await refreshed(server);
      return () => download(`${server.url}/nar/${file}`, server.pid);
    };
    return {
      contenders: { one: await serve(1), four: await serve(4) },
      goals: [
        {
          ...{ what: "four connections of 20 MB/s, of one", unit: "×", target: { atLeast: 3.5 } },
          figure: (round) => of(round, "one", "seconds") / of(round, "four", "seconds"),
        },
      ],
    };
  },
};
