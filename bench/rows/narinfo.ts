/** Narinfos, 10,000 entries: nginx with the same files and a Bun server with a Map beside ours; and misses. */
import { createServer } from "node:net";
import { join } from "node:path";
import { type Server, startServer } from "../../scripts/execute.ts";
import { ROOT } from "../../scripts/process.ts";
import { startNginx } from "../../tests/support/nginx.ts";
import { storeHash } from "../../tests/support/protocol.ts";
import { type Bench, makeFolder } from "../bench.ts";
import { of, type Row } from "../row.ts";
import {
  benchEntry,
  cacheFolder,
  refreshed,
  serveFolder,
  someIndexes,
  stopped,
  writePaths,
} from "../served.ts";
import { wrk } from "../wrk.ts";

export const narinfo: Row = {
  name: "narinfo",
  parts: ["wrk", "nginx"],
  async open(bench) {
    const entries = 10_000;
    const seconds = bench.size(3, 1);
    const lines = someIndexes(entries, entries).map(benchEntry);
    const hits = await writePaths(
      bench,
      "hits",
      lines.map(({ storeHash }) => storeHash),
    );
    const misses = await writePaths(
      bench,
      "misses",
      lines.map((_, index) => storeHash(`absent ${index}`)),
    );

    const root = await makeFolder(bench, "narinfos");
    for (const { storeHash, narinfo } of lines) await Bun.write(join(root, `${storeHash}.narinfo`), narinfo);
    const nginx = bench.use(await startNginx({ root, fast: true }));

    const map = join(bench.folder, "map.jsonl");
    const pairs = lines.map(({ storeHash, narinfo }) => JSON.stringify([`/${storeHash}.narinfo`, narinfo]));
    await Bun.write(map, pairs.join("\n"));
    const bare = await startBare(bench, "map", map);

    const server = await serveFolder(bench, await cacheFolder(bench, entries));
    bench.use(stopped(server));
    const dead = bench.use(await startSilence());
    const behind = await serveFolder(bench, await cacheFolder(bench, entries), "--upstream", dead.url);
    bench.use(stopped(behind));
    await Promise.all([server, behind].map(refreshed));
    // The first question finds out that nobody answers.
    await (await behind.get(`/${storeHash("anything")}.narinfo`)).text();

    return {
      contenders: {
        nginx: () => wrk(bench, nginx.url, hits, seconds),
        bare: () => wrk(bench, bare.url, hits, seconds),
        nixcache: () => wrk(bench, server.url, hits, seconds),
        misses: () => wrk(bench, behind.url, misses, seconds),
      },
      goals: [
        {
          ...{ what: "hits of 10,000, of nginx with files", unit: "×", target: { atLeast: 1.2 } },
          figure: (round) => of(round, "nixcache", "rate") / of(round, "nginx", "rate"),
        },
        {
          ...{ what: "hits of 10,000, of Bun.serve with a Map", unit: "×", target: { atLeast: 0.7 } },
          figure: (round) => of(round, "nixcache", "rate") / of(round, "bare", "rate"),
        },
        {
          ...{ what: "misses, dead upstream, of hits", unit: "×", target: { atLeast: 0.5 } },
          figure: (round) => of(round, "misses", "rate") / of(round, "nixcache", "rate"),
        },
        {
          ...{ what: "misses, dead upstream, 99 % within", unit: "ms", target: { atMost: 5 } },
          figure: (round) => of(round, "misses", "p99"),
        },
      ],
    };
  },
};

/** A Bun server of the least kind, ended with the row. */
export async function startBare(
  bench: Bench,
  kind: "map" | "pass" | "check",
  argument: string,
): Promise<Server> {
  const argv = [process.execPath, join(ROOT, "bench", "bare-server.ts"), kind, argument];
  const options = { cwd: bench.folder, env: process.env as Record<string, string> };
  const server = await startServer(argv, { ...options, signal: new AbortController().signal });
  bench.use({ close: () => server.stop() });
  return server;
}

/** An upstream that takes connections and never answers. */
async function startSilence(): Promise<{ url: string; close(): Promise<void> }> {
  const sockets = new Set<{ destroy(): void }>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
