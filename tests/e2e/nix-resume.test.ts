/** The real Nix, whose connection to `nixcache serve` breaks in the middle of a NAR: it goes on by Range. */
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { startBreakingProxy } from "../support/breaking-proxy.ts";
import { openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { openClient, storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix"], "Nix, cut off in the middle of a NAR", () => {
  // The small one is sent whole with its length, the others in chunks.
  test.each([
    ["small", 3 * MIB, MIB],
    ["large", 20 * MIB, 9 * MIB],
    ["an upstream's", 20 * MIB, 9 * MIB],
  ])(
    "that is %s, goes on from there",
    async (kind, size, after) => {
      const cli = cleanup.add(await openCli());
      const nix = cleanup.add(await openNix()).value;
      const file = join(nix.folder, "file");
      await writeRandomFile(file, size, 5);
      const path = (await nix.run("nix-store", ["--add", file])).trim();
      await cli.run(["keygen", "resume-1", cli.path("s"), cli.path("p")]);
      const cache = ["--cache", cli.path("cache"), "--upstream", ""];
      const publish = ["publish", path, ...cache, "--signing-key-file", cli.path("s"), "--part-size", "8M"];
      expect(await cli.run(publish, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
      const server = await cli.serve(cache);
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      const passesOn = () => cli.serve(["--cache", cli.path("empty"), "--upstream", server.url]);
      const { url } = kind === "an upstream's" ? await passesOn() : server;
      const proxy = cleanup.add(await startBreakingProxy(url, after));

      const client = await openClient(nix, await Bun.file(cli.path("p")).text());
      await client.copy(proxy.url, [path]);
      await client.verify();
      expect(await client.paths()).toEqual([path]);

      expect(proxy.broken()).toBe(1);
      const nars = proxy.requests().filter((request) => request.startsWith("GET /nar/"));
      const ranges = nars.map((request) => /^range: bytes=(\d+)-$/im.exec(request)?.[1]);
      expect(ranges).toEqual([undefined, expect.any(String)]);
      // Everything that had come counts; the head of the answer, and the lengths of chunks, are in `after` too.
      expect(Number(ranges[1])).toBeGreaterThan(after - MIB);
      await server.stop();
    },
    60_000,
  );
});
