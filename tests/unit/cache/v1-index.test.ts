import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { entryOf, formatLine, parseLine } from "../../../src/cache/entry.ts";
import { BrokenEntries, V1IndexParser, type V1Item, v1IndexOf } from "../../../src/cache/v1-index.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { parsePublicKey } from "../../../src/nar/signing-key.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { bent, V1_PUBLIC_KEY, type V1Fields, v1Path, v1Text } from "../../support/v1-cache.ts";

const FIXTURES = join(import.meta.dir, "../../fixtures/v1");

function read(text: string | Uint8Array, chunk = 1000) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  const parser = new V1IndexParser("index");
  const items: V1Item[] = [];
  for (let at = 0; at < bytes.length; at += chunk)
    for (const item of parser.push(bytes.slice(at, at + chunk))) items.push(item);
  return { items, head: parser.end() };
}

/** The one item of an index of one entry. */
const readOne = (change: (fields: V1Fields) => Record<string, unknown>): V1Item =>
  read(v1Text([bent(v1Path("hello"), change)])).items[0] as V1Item;

describe.each(["first", "copied", "dumped"])("what nixcache-oci has written: %s", (name) => {
  const bytes = () => Bun.file(join(FIXTURES, `${name}.json`)).bytes();

  test("its manifest names the index", async () => {
    const manifest = decodeManifest(await Bun.file(join(FIXTURES, `${name}-manifest.json`)).bytes(), name);
    const content = await bytes();
    expect(v1IndexOf(manifest)).toEqual({
      digest: `sha256:${new Bun.CryptoHasher("sha256").update(content).digest("hex")}`,
      size: content.length,
    });
  });

  test("every entry becomes a line named by content, with its good signature", async () => {
    const { items, head } = read(await bytes());
    const { entries } = JSON.parse(new TextDecoder().decode(await bytes()));
    expect(head).toMatchObject({ version: 1, roots: new Set(["lvxiy72dz3vhwgcxfany2av7kq45k7sl"]) });
    const [key = ""] = head.keys;
    expect(items.map((item) => ("line" in item ? item.line.storeHash : item))).toEqual(
      Object.keys(entries).sort(),
    );
    for (const item of items) {
      if (!("line" in item)) throw new Error(item.problem);
      const { line } = item;
      expect(parseLine(formatLine(line), "again")).toEqual(line);
      const { info, parts } = entryOf(line);
      const old = entries[line.storeHash];
      expect(info.url).toBe(`nar/${info.fileHash?.slice("sha256:".length)}.nar.xz`);
      expect(old.narinfo).toContain(`FileHash: ${info.fileHash}\n`);
      expect(parts).toEqual([{ blob: old.nar_digest, size: old.nar_size, offset: 0, length: old.nar_size }]);
      expect(verifyNarInfo(info, [parsePublicKey(key)])).toBe(true);
      expect(line.added * 1000).toBe(Date.parse(old.added));
    }
  });

  test("the fork in Rust has the same, in another order and without sorting", async () => {
    const { items, head } = read(await bytes());
    const { version, repo, registry, image, generated, public_key, entries, gc_roots } = JSON.parse(
      new TextDecoder().decode(await bytes()),
    );
    const shuffled = Object.fromEntries(Object.entries(entries).reverse());
    const fork = { version, repo, registry, image, generated, public_key, entries: shuffled, gc_roots };
    const again = read(JSON.stringify(fork, null, 2));
    expect(again.head).toEqual(head);
    expect(again.items.reverse()).toEqual(items);
  });
});

describe("an entry", () => {
  test.each<[string, (fields: V1Fields) => Record<string, unknown>]>([
    ["with a field that nobody knows", () => ({ last_used: "2026" })],
    ["without a name", () => ({ name: undefined })],
    ["without nar_size", () => ({ nar_size: undefined })],
    ["without FileHash", ({ narinfo }) => ({ narinfo: narinfo.replace(/FileHash: .*\n/, "") })],
    ["without FileSize", ({ narinfo }) => ({ narinfo: narinfo.replace(/FileSize: .*\n/, "") })],
    ["without the newline at its end", ({ narinfo }) => ({ narinfo: narinfo.trimEnd() })],
    [
      "with a FileHash in hex",
      ({ narinfo, nar_digest }) => ({ narinfo: narinfo.replace(/FileHash: .*/, `FileHash: ${nar_digest}`) }),
    ],
  ])("%s is the same", (_, change) => {
    const path = v1Path("hello");
    const item = readOne(change);
    if (!("line" in item)) throw new Error(item.problem);
    expect(item.line).toEqual((readOne(() => ({})) as typeof item).line);
    expect(item.line.narinfo).toContain(`URL: ${path.newUrl}\n`);
    expect(item.line.narinfo).toContain("\nReferences: \n");
  });

  test.each(["zst", "zstd", "none", "gz"])("keeps the ending of its file: %s", (ending) => {
    const compression = { zst: "zstd", zstd: "zstd", none: "none", gz: "gzip" }[ending] as string;
    const suffix = ending === "none" ? ".nar" : `.nar.${ending}`;
    const path = v1Path("hello");
    const item = readOne(({ narinfo }) => ({
      narinfo: narinfo.replace("Compression: xz", `Compression: ${compression}`).replace(".nar.xz", suffix),
    }));
    expect("line" in item && item.line.file).toBe(path.newUrl.slice(4).replace(".nar.xz", suffix));
  });

  test.each<[string, unknown]>([
    ["no time", undefined],
    ["a time that is none", "yesterday"],
    ["a number", 1777000000],
    ["a time before 1970", "1960-01-01T00:00:00Z"],
  ])("added at %s is the oldest", (_, added) => {
    const item = readOne(() => ({ added }));
    expect("line" in item && item.line.added).toBe(0);
  });

  test.each<[string, (fields: V1Fields) => Record<string, unknown>, string]>([
    ["no narinfo", () => ({ narinfo: undefined }), 'got "narinfo": undefined'],
    ["a narinfo that is none", () => ({ narinfo: "StorePath: /nix/store/x\n" }), "a store path"],
    ["an empty narinfo", () => ({ narinfo: "" }), "narinfo"],
    [
      "the narinfo of another path",
      () => ({ narinfo: v1Path("other").fields.narinfo }),
      "its narinfo is of /nix/store/",
    ],
    ["no digest", () => ({ nar_digest: "" }), '"nar_digest"'],
    ["the digest of another NAR", () => ({ nar_digest: v1Path("other").digest }), "its NAR is sha256:"],
    ["another size than FileSize", () => ({ nar_size: 5 }), 'got "nar_size": 5, its narinfo has FileSize: '],
    ["a size that is a text", () => ({ nar_size: "11" }), 'got "nar_size": "11"'],
    [
      "neither size",
      ({ narinfo }) => ({ nar_size: null, narinfo: narinfo.replace(/FileSize: .*\n/, "") }),
      'got "nar_size": null',
    ],
    [
      "a size of nothing",
      ({ narinfo }) => ({ nar_size: 0, narinfo: narinfo.replace(/FileSize: .*\n/, "") }),
      "outside its blob",
    ],
    [
      "half a byte",
      ({ narinfo }) => ({ nar_size: 1.5, narinfo: narinfo.replace(/FileSize: .*\n/, "") }),
      "a size in bytes",
    ],
    [
      "a URL elsewhere",
      ({ narinfo }) => ({ narinfo: narinfo.replace("URL: nar/", "URL: https://x/") }),
      "expected nar/<store hash>.nar.xz",
    ],
    [
      "a URL that goes up",
      ({ narinfo }) => ({ narinfo: narinfo.replace("URL: nar/", "URL: nar/../") }),
      "expected nar/<store hash>.nar.xz",
    ],
    [
      "a compression that no Nix knows",
      ({ narinfo }) => ({ narinfo: narinfo.replace(": xz", ": rar") }),
      "one of none, xz",
    ],
    ["a bad NAR hash", ({ narinfo }) => ({ narinfo: narinfo.replace("sha256-", "sha1-") }), "a sha1 hash"],
  ])("with %s is broken, which says why and names it", (_, change, problem) => {
    const item = readOne(change);
    if ("line" in item) throw new Error(formatLine(item.line));
    expect(item).toMatchObject({ hash: v1Path("hello").hash, name: "hello" });
    expect(item.problem).toContain(problem);
  });

  test("that is broken costs none of the others", () => {
    const [good, bad, last] = [v1Path("good"), v1Path("bad"), v1Path("last")];
    const text = v1Text([good, bad, last])
      .replace(JSON.stringify(bad.fields.narinfo), "nope")
      .replace(JSON.stringify(last.fields.name), `"${"x".repeat(3 * 1024 * 1024)}"`);
    for (const chunk of [500, 1 << 20]) {
      const { items } = read(text, chunk);
      expect(items.filter((item) => "line" in item).length).toBe(1);
      const broken = items.flatMap((item) => ("line" in item ? [] : [item.problem]));
      expect(broken.sort()).toEqual(["longer than 2097152 bytes, or no UTF-8", "the entry: not valid JSON"]);
    }
  });
});

describe("the head", () => {
  test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ["a key", {}, { keys: [V1_PUBLIC_KEY], generated: Date.UTC(2026, 3, 24, 14, 20, 11) }],
    ["a key with a newline", { public_key: `${V1_PUBLIC_KEY}\n` }, { keys: [V1_PUBLIC_KEY] }],
    ["no key", { public_key: "" }, { keys: [] }],
    ["a key that is none", { public_key: "me-1:AAAA\nextra-substituters = evil" }, { keys: [] }],
    [
      "no fields at all",
      { public_key: undefined, generated: undefined, gc_roots: null },
      { keys: [], roots: new Set() },
    ],
    ["roots that are none", { gc_roots: ["x", 5, null, ["y"]] }, { roots: new Set() }],
    ["another version", { version: 2 }, { version: 2 }],
    ["no version", { version: undefined }, { version: undefined }],
    ["another version without entries", { version: 4, entries: undefined }, { version: 4 }],
  ])("has %s", (_, more, expected) => {
    const { generated, ...head } = read(v1Text([v1Path("a")], more)).head;
    expect({ ...head, ...(generated !== undefined && { generated }) }).toMatchObject(expected);
  });

  test.each([
    ["cut off", (text: string) => text.slice(0, -2)],
    ["with something behind it", (text: string) => `${text}]`],
    [
      "with entries that are no object",
      (text: string) => text.replace(/"entries": \{[\s\S]*\n {2}\}/, '"entries": null'),
    ],
    [
      "with entries in a list",
      (text: string) => text.replace(/"entries": \{[\s\S]*\n {2}\}/, '"entries": []'),
    ],
    ["without entries", () => v1Text([], { entries: undefined })],
    ["that is empty", () => ""],
    ["packed", () => "\u001f\u008b\b"],
  ])("of an index %s is an error, never an empty index", (_, change) => {
    expect(() => read(change(v1Text([v1Path("a")])))).toThrow(/index: (not valid JSON|got no entries)/);
  });
});

test("another tool's manifest is none of ours", () => {
  const layer = { mediaType: "application/vnd.nix.cache.index.v3+zstd", digest: v1Path("a").digest, size: 5 };
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json",
    config: layer,
  } as const;
  expect(v1IndexOf({ ...manifest, layers: [layer] })).toBeUndefined();
  expect(v1IndexOf({ ...manifest, layers: [] })).toBeUndefined();
});

test("a message names a few of the broken entries, in one line", () => {
  const broken = new BrokenEntries();
  for (let index = 0; index < 7; index++) broken.add(`evil\u001b[2J${index}`, "for\nno reason");
  expect(String(broken)).toBe(
    [0, 1, 2, 3, 4].map((index) => `"evil\\u001b[2J${index}" (for\\u000ano reason)`).join(", ") +
      ", and 2 more",
  );
});
