/** Other people's tools on our caches: the registry's garbage collector, and skopeo as the mirror. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { digestHex } from "../../src/oci/digest.ts";
import { IMAGE_CONFIG } from "../../src/oci/manifest.ts";
import { snapshot } from "../support/cache-files.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { downloadAll, type Served } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let registry: TestRegistry;
let paths: string[];
/** What the cache serves before anybody has touched it. */
let original: Map<string, Served>;
let cache: string;
let indexes = 0;

/** All that a cache serves, to a server that has never seen it. */
async function served(reference: string): Promise<Map<string, Served>> {
  const env = { NIXCACHE_INDEX_DIR: cli.path(`index-${++indexes}`) };
  const server = await cli.serve(["--cache", reference, "--upstream", ""], { env });
  try {
    await server.get("/_refresh", { method: "POST" });
    return await downloadAll(server, paths, nix);
  } finally {
    await server.stop();
  }
}

async function skopeoCopy(from: string, to: string): Promise<void> {
  const tls = ["--src-tls-verify=false", "--dest-tls-verify=false"].filter((flag) =>
    (flag.startsWith("--src") ? from : to).startsWith("docker:"),
  );
  // Debian ships a policy that accepts everything; other machines may have none.
  await nix.run("skopeo", ["--insecure-policy", "copy", "--quiet", ...tls, from, to]);
}

async function registryTags(repository: string): Promise<string[]> {
  const answer = await fetch(`http://${registry.host}/v2/${repository}/tags/list`);
  return ((await answer.json()) as { tags: string[] }).tags;
}

async function layoutTags(folder: string): Promise<string[]> {
  const index = await Bun.file(join(folder, "index.json")).json();
  return index.manifests.map(
    (entry: { annotations: Record<string, string> }) =>
      entry.annotations["org.opencontainers.image.ref.name"] as string,
  );
}

describeWith(["nix", "registry", "skopeo"], "mirror", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    cache = `${registry.host}/owner/repo/nix-cache`;
    const publish = async (...args: string[]) => {
      const common = ["--cache", cache, "--upstream", "", "--signing-key-file", cli.path("s")];
      const result = await cli.run(["publish", ...args, ...common], { env: storeVariables(nix) });
      expect(result).toMatchObject({ code: 0 });
    };
    await cli.run(["keygen", "mirror-1", cli.path("s"), cli.path("p")]);
    const closure = await buildClosure(nix, { paths: 30, seed: 2 });
    const file = join(nix.folder, "random");
    await writeRandomFile(file, 20 * 1024 ** 2, 4);
    const large = (await nix.run("nix-store", ["--add", file])).trim();
    const other = await buildClosure(nix, { paths: 10, seed: 5 });
    // Small NARs in packs, a large one in parts, and three generations, the last of which restates lines.
    await publish(closure.root);
    await publish(large, "--part-size", "4M");
    await publish(closure.root, other.root);
    paths = [...closure.paths, ...other.paths, large];
    original = await served(cache);
  });

  test("after the registry's garbage collection every NAR still downloads", async () => {
    const blobs = join(registry.folder, "docker/registry/v2/blobs");
    const before = await snapshot(blobs);
    await registry.collectGarbage();
    // The config of the manifest that asked how strict the registry is: nothing needs it any more.
    const probe = `sha256/${digestHex(IMAGE_CONFIG.digest).slice(0, 2)}/${digestHex(IMAGE_CONFIG.digest)}/data`;
    expect(before.delete(probe)).toBe(true);
    expect(await snapshot(blobs)).toEqual(before);
    expect(await served(cache)).toEqual(original);
  });

  test("the same after one that deletes untagged manifests too", async () => {
    await registry.collectGarbage({ untagged: true });
    expect(await served(cache)).toEqual(original);
  });

  test("what skopeo copies from the registry to a folder, and on to another folder, serves the same", async () => {
    const first = cli.path("first");
    const tags = await registryTags("owner/repo/nix-cache");
    expect(tags).toContain("nixcache-index");
    expect(tags.filter((tag) => tag.startsWith("seg-"))).toHaveLength(3);
    for (const tag of tags) await skopeoCopy(`docker://${cache}:${tag}`, `oci:${first}:${tag}`);
    expect(await served(first)).toEqual(original);

    const second = cli.path("second");
    for (const tag of await layoutTags(first))
      await skopeoCopy(`oci:${first}:${tag}`, `oci:${second}:${tag}`);
    expect(await served(second)).toEqual(original);
  });

  test("what skopeo copies from a folder of ours to a registry serves the same", async () => {
    const folder = cli.path("ours");
    const args = [
      "--cache",
      folder,
      "--upstream",
      "",
      "--signing-key-file",
      cli.path("s"),
      "--part-size",
      "4M",
    ];
    expect(await cli.run(["publish", ...paths, ...args], { env: storeVariables(nix) })).toMatchObject({
      code: 0,
    });
    const ours = await served(folder);
    for (const tag of await layoutTags(folder)) {
      await skopeoCopy(`oci:${folder}:${tag}`, `docker://${registry.host}/copy:${tag}`);
    }
    expect(await served(`${registry.host}/copy`)).toEqual(ours);
  });

  test("a mirror without the root serves the same: the root is only a cache of the segments", async () => {
    const folder = cli.path("rootless");
    const tags = await registryTags("owner/repo/nix-cache");
    for (const tag of tags.filter((tag) => tag !== "nixcache-index")) {
      await skopeoCopy(`docker://${cache}:${tag}`, `oci:${folder}:${tag}`);
    }
    expect(await served(folder)).toEqual(original);
  });

  test("publishing into a mirror goes on from what is there", async () => {
    const folder = cli.path("goes-on");
    for (const tag of await registryTags("owner/repo/nix-cache")) {
      await skopeoCopy(`docker://${cache}:${tag}`, `oci:${folder}:${tag}`);
    }
    const args = ["--cache", folder, "--upstream", "", "--signing-key-file", cli.path("s"), "--json"];
    const result = await cli.run(["publish", ...paths, ...args], { env: storeVariables(nix) });
    expect(result).toMatchObject({ code: 0 });
    expect(JSON.parse(result.stdout)).toMatchObject({
      paths: { restated: paths.length, uploaded: 0 },
      bytes: { sent: 0 },
    });
    expect(await served(folder)).toEqual(original);
  });
});
