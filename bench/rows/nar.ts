/** One NAR of 1 GiB through serve, checked: a Bun server that passes it on unchecked, and curl alone, beside it. */
import { join } from "node:path";
import { encodeEntry } from "../../src/cache/entry.ts";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { GenerationWriter } from "../../src/protocol/generation.ts";
import { party, storeHash, testRecord } from "../../tests/support/protocol.ts";
import { writeRandomFile } from "../../tests/support/random-file.ts";
import { startRegistry } from "../../tests/support/registry.ts";
import { type Bench, cpuSeconds, makeFolder, residentBytes, time } from "../bench.ts";
import { of, type Row, type Sample } from "../row.ts";
import { refreshed, stopped, writableStore } from "../served.ts";
import { startBare } from "./narinfo.ts";

const MIB = 1024 ** 2;

export const nar: Row = {
  name: "nar",
  parts: ["registry", "curl"],
  async open(bench) {
    const size = bench.size(1024, 512) * MIB;
    const registry = bench.use(await startRegistry());
    const { file, digest } = await publishBlob(bench, `${registry.host}/nar`, size);
    const blob = `/v2/nar/blobs/${digest}`;
    const bare = await startBare(bench, "pass", `http://${registry.host}`);
    const checking = await startBare(bench, "check", `http://${registry.host}`);
    const env = { NIXCACHE_INDEX_DIR: await makeFolder(bench, "nar-index") };
    const server = await bench.cli.serve(["--cache", `${registry.host}/nar`, "--upstream", ""], { env });
    bench.use(stopped(server));
    await refreshed(server);

    return {
      contenders: {
        curl: () => download(`http://${registry.host}${blob}`),
        bare: () => download(bare.url + blob, bare.pid),
        checking: () => download(checking.url + blob, checking.pid),
        nixcache: () => download(`${server.url}/nar/${file}`, server.pid),
      },
      goals: [
        {
          ...{
            what: "1 GiB, checked, of a bare pass-through",
            unit: "×",
            target: { atLeast: 0.8 },
            within: 0.5,
          },
          figure: (round) => of(round, "bare", "seconds") / of(round, "nixcache", "seconds"),
        },
        {
          ...{ what: "CPU for it, of a bare pass-through", unit: "×", target: { atMost: 1.6 }, within: 3 },
          figure: (round) => of(round, "nixcache", "cpu") / of(round, "bare", "cpu"),
        },
        {
          ...{ what: "1 GiB, checked, of a bare pass-through that hashes", unit: "×" },
          figure: (round) => of(round, "checking", "seconds") / of(round, "nixcache", "seconds"),
        },
        {
          ...{ what: "CPU of a bare pass-through that hashes, of one that does not", unit: "×" },
          figure: (round) => of(round, "checking", "cpu") / of(round, "bare", "cpu"),
        },
        {
          ...{ what: "1 GiB, checked, of curl straight from the registry", unit: "×" },
          figure: (round) => of(round, "curl", "seconds") / of(round, "nixcache", "seconds"),
        },
      ],
    };
  },
};

/** A cache with one path whose NAR is one blob of this size. @returns the name of its file, and its digest */
export async function publishBlob(bench: Bench, reference: string, size: number) {
  const path = join(await makeFolder(bench, "blob"), "random");
  await writeRandomFile(path, size, 1);
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of Bun.file(path).stream()) hasher.update(chunk);
  const bytes = hasher.digest();
  const digest = `sha256:${bytes.toString("hex")}` as const;
  const hash = encodeBase32(bytes);
  const file = `${hash}.nar.zst`;
  const line = encodeEntry({
    info: {
      ...{ storePath: `/nix/store/${storeHash("blob")}-blob`, url: `nar/${file}`, compression: "zstd" },
      ...{ fileHash: `sha256:${hash}`, fileSize: size, narHash: `sha256:${hash}`, narSize: size },
      ...{ references: [], sigs: [] },
    },
    parts: [{ blob: digest, size, offset: 0, length: size }],
    added: 1_760_000_000,
  });
  using publisher = party(writableStore(reference));
  await publisher.store.writeBlob({ digest, size, content: { file: path } });
  const record = { ...testRecord([line], publisher.host), content: digestOf("blob") };
  await new GenerationWriter(publisher, {}).commit(record, [line], [{ digest, size }]);
  return { file, digest };
}

/** @param pid whose use of the processors counts */
export async function download(url: string, pid?: number): Promise<Sample> {
  const before = pid === undefined ? 0 : cpuSeconds(pid);
  const { seconds } = await time(["curl", "-sf", "-o", "/dev/null", url]);
  if (pid === undefined) return { seconds };
  return { seconds, cpu: cpuSeconds(pid) - before, rss: residentBytes(pid) };
}
