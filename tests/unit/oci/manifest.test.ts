import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  decodeManifest,
  describe as descriptorOf,
  EMPTY_CONFIG,
  EMPTY_CONFIG_BYTES,
  encodeManifest,
  IMAGE_CONFIG,
  IMAGE_CONFIG_BYTES,
  type ImageManifest,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
  withoutArtifactType,
} from "../../../src/oci/manifest.ts";

const DIGEST = `sha256:${"ab".repeat(32)}` as const;
const bytesOf = (value: unknown) =>
  new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value));
const valid = {
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_MANIFEST,
  config: EMPTY_CONFIG,
  layers: [{ mediaType: MEDIA_TYPE_LAYER, digest: DIGEST, size: 5 }],
};

test("the empty config is the one that the specification gives", () => {
  expect(EMPTY_CONFIG).toEqual({
    mediaType: "application/vnd.oci.empty.v1+json",
    digest: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    size: 2,
  });
  expect(digestOf(EMPTY_CONFIG_BYTES)).toBe(EMPTY_CONFIG.digest);
});

test("the bytes are the same for equal manifests, in the specification's order", () => {
  const manifest: ImageManifest = {
    layers: [{ size: 5, digest: DIGEST, mediaType: "b/c", annotations: { z: "1", a: "2" } }],
    annotations: { b: "2", a: "1" },
    config: EMPTY_CONFIG,
    artifactType: "x/y",
    mediaType: MEDIA_TYPE_MANIFEST,
    schemaVersion: 2,
  };
  expect(new TextDecoder().decode(encodeManifest(manifest))).toBe(
    `{"schemaVersion":2,"mediaType":"${MEDIA_TYPE_MANIFEST}","artifactType":"x/y","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"${EMPTY_CONFIG.digest}","size":2},"layers":[{"mediaType":"b/c","digest":"${DIGEST}","size":5,"annotations":{"a":"2","z":"1"}}],"annotations":{"a":"1","b":"2"}}`,
  );
});

test("a manifest without an artifact type has an image config of the right digest", () => {
  const plain = withoutArtifactType({
    ...valid,
    schemaVersion: 2,
    mediaType: MEDIA_TYPE_MANIFEST,
    artifactType: "x/y",
  });
  expect("artifactType" in plain).toBe(false);
  expect(plain.layers).toEqual(valid.layers);
  expect(plain.config).toEqual(IMAGE_CONFIG);
  expect(descriptorOf(IMAGE_CONFIG.mediaType, IMAGE_CONFIG_BYTES)).toEqual(IMAGE_CONFIG);
  expect(JSON.parse(new TextDecoder().decode(IMAGE_CONFIG_BYTES))).toMatchObject({
    rootfs: { type: "layers", diff_ids: [] },
  });
});

test("what other tools write is read: no media type, null annotations, more fields", () => {
  const { mediaType: _, ...rest } = valid;
  const read = decodeManifest(
    bytesOf({ ...rest, annotations: null, subject: { x: 1 }, layers: [{ ...valid.layers[0], urls: [] }] }),
    "t",
  );
  expect(read as unknown).toEqual(valid);
});

test.each<[string, unknown, string]>([
  ["no JSON", "{", "t: got 1 bytes that are no JSON"],
  ["nothing", "", "t: got 0 bytes that are no JSON"],
  ["not UTF-8", "\u0000", "t: got 1 bytes"],
  ["a byte order mark", "\ufeff{}", "are no JSON"],
  ["a list", [], "t: got [], expected an object"],
  ["null", null, "t: got null, expected an object"],
  ["schema 1", { ...valid, schemaVersion: 1 }, "t: schemaVersion: got 1, expected 2"],
  ["an index", { ...valid, mediaType: "application/vnd.oci.image.index.v1+json" }, "t: mediaType: got"],
  ["no layers", { ...valid, layers: undefined }, "t: layers: got nothing, expected a list"],
  ["no config", { ...valid, config: undefined }, "t: config: got nothing, expected an object"],
  ["an empty artifact type", { ...valid, artifactType: "" }, "t: artifactType"],
  ["annotations of numbers", { ...valid, annotations: { a: 1 } }, "t: annotations.a: got 1, expected a text"],
  ["annotations as a list", { ...valid, annotations: [] }, "t: annotations: got []"],
  ["a layer that is none", { ...valid, layers: [valid.layers[0], 5] }, "t: layers[1]: got 5"],
  ...[-1, 1.5, 2 ** 53, "5", null, undefined].map((size): [string, unknown, string] => [
    `the size ${size}`,
    { ...valid, layers: [{ ...valid.layers[0], size }] },
    "t: layers[0].size: got",
  ]),
  ...["", "sha256:", DIGEST.toUpperCase(), `${DIGEST}0`, "sha512:00", 5].map(
    (digest): [string, unknown, string] => [
      `the digest ${digest}`,
      { ...valid, layers: [{ ...valid.layers[0], digest }] },
      "t: layers[0].digest: got",
    ],
  ),
])("%s is corrupt", (_, value, message) => {
  const decode = () => decodeManifest(bytesOf(value), "t");
  expect(decode).toThrow(
    expect.objectContaining({ code: "corrupt", message: expect.stringContaining(message) }),
  );
});

test("invalid UTF-8 is corrupt", () => {
  expect(() => decodeManifest(new Uint8Array([0x22, 0xff, 0x22]), "t")).toThrow(
    "t: got 3 bytes that are no JSON",
  );
});

test("more than 4 MiB are refused, before they are parsed, and never written", () => {
  const text = JSON.stringify(valid).padEnd(MAX_MANIFEST_BYTES + 1);
  expect(() => decodeManifest(bytesOf(text), "t")).toThrow("expected a manifest of at most 4194304");
  expect(decodeManifest(bytesOf(text.slice(0, -1)), "t") as unknown).toEqual(valid);
  const layers = Array.from({ length: 40_000 }, () => valid.layers[0]) as never;
  expect(() => encodeManifest({ ...valid, layers } as never)).toThrow(
    expect.objectContaining({ code: "internal" }),
  );
});

describe("properties", () => {
  const annotations = fc.dictionary(fc.string(), fc.string({ unit: "grapheme" }), { maxKeys: 4 });
  const descriptor = fc.record(
    {
      mediaType: fc.string({ minLength: 1 }),
      digest: fc.stringMatching(/^[0-9a-f]{64}$/).map((hex) => `sha256:${hex}` as const),
      size: fc.maxSafeNat(),
      annotations,
    },
    { requiredKeys: ["mediaType", "digest", "size"] },
  );
  const manifest = fc.record(
    {
      schemaVersion: fc.constant(2 as const),
      mediaType: fc.constant(MEDIA_TYPE_MANIFEST as typeof MEDIA_TYPE_MANIFEST),
      artifactType: fc.string({ minLength: 1 }),
      config: descriptor,
      layers: fc.array(descriptor, { maxLength: 5 }),
      annotations,
    },
    { requiredKeys: ["schemaVersion", "mediaType", "config", "layers"] },
  );

  test("what is encoded is decoded as the same, and encoded to the same bytes", () => {
    fc.assert(
      fc.property(manifest, (value) => {
        const bytes = encodeManifest(value as ImageManifest);
        const decoded = decodeManifest(bytes, "t");
        expect(JSON.parse(JSON.stringify(decoded))).toEqual(JSON.parse(JSON.stringify(value)));
        expect(encodeManifest(decoded)).toEqual(bytes);
      }),
    );
  });

  test("any bytes are a manifest or corrupt", () => {
    const bytes = fc.oneof(
      fc.uint8Array(),
      fc.json().map((text) => bytesOf(text)),
      // A valid one with one byte changed.
      fc.tuple(fc.nat(JSON.stringify(valid).length - 1), fc.nat(255)).map(([at, byte]) => {
        const changed = bytesOf(valid);
        changed[at] = byte;
        return changed;
      }),
    );
    fc.assert(
      fc.property(bytes, (value) => {
        try {
          decodeManifest(value, "t");
        } catch (error) {
          expect(error).toMatchObject({ code: "corrupt" });
        }
      }),
      { numRuns: 500 },
    );
  });
});
