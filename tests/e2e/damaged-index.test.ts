/**
 * A cache whose index is damaged: publish stops with one sentence and writes nothing, serve says that it is not
 * ready. A damaged root is only a warning, since the segments are the truth.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp } from "node:fs/promises";
import { snapshot } from "../support/cache-files.ts";
import { type Cli, openCli, type RunOptions } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { type Damage, damageLayer, removeTag } from "../support/layout-edit.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation } from "../support/nix.ts";
import { expectRefusal } from "../support/refusal.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const ROOT_TAG = "nixcache-index";
const LINE_LIMIT = 4 * 1024 * 1024;

let cli: Cli;
let path: string;
let store: Record<string, string>;
let copies = 0;

/** The text of an index layer changed, and packed again. */
function edited(edit: (text: string) => string): Damage {
  const bytes = (layer: Uint8Array) => Bun.zstdCompressSync(edit(Bun.zstdDecompressSync(layer).toString()));
  return { kind: "rewritten", bytes };
}

const rewritten = (bytes: (layer: Uint8Array) => Uint8Array): Damage => ({ kind: "rewritten", bytes });

/** Another value for one byte in the middle. */
function flip(bytes: Uint8Array): Uint8Array {
  const flipped = Uint8Array.from(bytes);
  const middle = bytes.length >> 1;
  flipped[middle] = (flipped[middle] ?? 0) ^ 1;
  return flipped;
}

/** `says` is what the sentence must hold beside the digest. */
const DAMAGES: [name: string, damage: Damage, says: RegExp][] = [
  ["a flipped byte", { kind: "stored", bytes: flip }, /sha256:[0-9a-f]{64}/],
  [
    "half of its bytes",
    { kind: "stored", bytes: (b) => b.subarray(0, b.length >> 1) },
    /sha256:[0-9a-f]{64}/,
  ],
  ["no file at all", { kind: "gone" }, /seg-.*absent/],
  ["a size that is too large", { kind: "size", by: 1 }, /sha256:[0-9a-f]{64}.* \d+ bytes/],
  ["a size that is too small", { kind: "size", by: -1 }, /sha256:[0-9a-f]{64}.* \d+ bytes/],
  ["bytes that are no zstd", rewritten(() => Buffer.from("no zstd at all")), /zstd/],
  ["zstd that ends too early", rewritten((b) => b.subarray(0, b.length - 3)), /zstd/],
  ["nothing in it", edited(() => ""), /header/],
  ["a first line that is no JSON", edited(() => "not JSON\n"), /line 1.*JSON/],
  [
    "a line that is too long",
    edited((text) => `${text}${"x".repeat(LINE_LIMIT + 1)}\n`),
    /line 3 is longer than 4194304 bytes/,
  ],
  ["a last line without its end", edited((text) => text.slice(0, -1)), /middle of line 2/],
  [
    "a format of the future",
    edited((text) => text.replace('"nixcache":1', '"nixcache":2')),
    /format 2, expected 1/,
  ],
];

/** Lines that are no entries. The others are not concerned. */
const BROKEN_LINES: [name: string, damage: Damage, says: RegExp][] = [
  ["an entry that is no JSON", edited((text) => `${text}{"narinfo":\n`), /line 3.*JSON/],
  [
    "an entry without a NAR",
    edited((text) => text.replace(/"parts":\[.*?\]\]/, '"parts":[]')),
    /line 2.*parts/,
  ],
  ["a narinfo that is none", edited((text) => text.replace("NarHash: sha256:", "NarHash: ")), /line 2/],
];

/** A fresh copy of the cache with this damage. */
async function damaged(damage: Damage, what: "seg-" | "nixcache-index"): Promise<string> {
  const copy = cli.path(`copy-${++copies}`);
  await cp(cli.path("cache"), copy, { recursive: true });
  await damageLayer(copy, what, damage);
  // With a root that covers the segment, nobody reads the segment.
  if (what === "seg-") await removeTag(copy, ROOT_TAG);
  return copy;
}

const fresh = (): RunOptions => ({ env: { ...store, NIXCACHE_INDEX_DIR: cli.path(`index-${++copies}`) } });

describeWith(["nix"], "a damaged index", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    const nix = cleanup.add(await openNix()).value;
    path = await nix.build(shellDerivation("damaged-index", "echo content > $out"));
    store = storeVariables(nix);
    const args = ["publish", path, "--cache", cli.path("cache"), "--upstream", ""];
    expect(await cli.run(args, { env: store })).toMatchObject({ code: 0 });
  });

  describe.each(DAMAGES)("a segment with %s", (_, damage, says) => {
    test("stops a publish, which writes nothing", async () => {
      const cache = await damaged(damage, "seg-");
      const before = await snapshot(cache);
      const result = await cli.run(["publish", path, "--cache", cache, "--upstream", ""], fresh());
      expectRefusal(result, { code: 11, says });
      expect(result.stderr.length).toBeLessThan(2_000);
      expect(await snapshot(cache)).toEqual(before);
    });

    test("is never served: nix-cache-info 503, narinfo 404", async () => {
      const cache = await damaged(damage, "seg-");
      const server = await cli.serve(["--cache", cache, "--upstream", ""], fresh());
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
      expect((await server.get("/nix-cache-info")).status).toBe(503);
      expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(404);
      expect(await server.stop()).toBe(0);
      expect(server.log()).toMatch(says);
    });
  });

  test.each(BROKEN_LINES)(
    "a segment with %s is read but for that line, and a publish goes on",
    async (_, damage, says) => {
      const cache = await damaged(damage, "seg-");
      const result = await cli.run(["publish", path, "--cache", cache, "--upstream", ""], fresh());
      expect(result).toMatchObject({ code: 0 });
      expect(result.stderr).toMatch(says);
      const server = await cli.serve(["--cache", cache, "--upstream", ""], fresh());
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
      expect(await server.stop()).toBe(0);
      const repaired = await cli.run(["verify", "--repair", "--cache", cache, "--upstream", ""], fresh());
      expect(repaired).toMatchObject({ code: 14 });
      const after = await cli.run(["verify", "--cache", cache, "--upstream", ""], fresh());
      expect(after).toMatchObject({ code: 0 });
    },
  );

  test.each([...DAMAGES, ...BROKEN_LINES])(
    "a root with %s is read from the segments instead, and mended",
    async (_, damage) => {
      const cache = await damaged(damage, ROOT_TAG);
      const server = await cli.serve(["--cache", cache, "--upstream", ""], fresh());
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
      await server.stop();

      const again = await cli.run(["publish", path, "--cache", cache, "--upstream", ""], fresh());
      expect(again).toMatchObject({ code: 0 });
      expect(again.stderr).toContain("nothing to upload");
      const after = await cli.run(["publish", path, "--cache", cache, "--upstream", ""], fresh());
      expect(after.stderr).not.toContain("[warn]");
    },
  );
});
