import { expect, test } from "bun:test";
import { NixcacheError } from "../../../src/errors.ts";
import { decodeManifest } from "../../../src/oci/manifest.ts";
import { isStrict } from "../../../src/protocol/strictness.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { party } from "../../support/protocol.ts";

test("the probe passes a registry that refuses custom artifact types and empty configs", async () => {
  const store = new MemoryStore();
  store.strictness = "unknown";
  using machine = party(store);
  const write = store.writeManifest.bind(store);
  store.writeManifest = async (reference, mediaType, bytes) => {
    const { artifactType, config } = decodeManifest(bytes, reference);
    if (artifactType !== undefined || config.mediaType.includes("empty")) {
      throw new NixcacheError("protocol", "unsupported artifact type");
    }
    return write(reference, mediaType, bytes);
  };
  expect(await isStrict(machine)).toBe(true);
});
