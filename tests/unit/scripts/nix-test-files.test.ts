import { describe, expect, test } from "bun:test";
import { filesWithNix, REPEATED_WITH_NEWER_NIX } from "../../../scripts/nix-test-files.ts";

describe("tests with a real Nix", () => {
  test("are found by what they ask for", async () => {
    const files = await filesWithNix();
    expect(files).toContain("tests/e2e/round-trip.test.ts");
    expect(files).toContain("tests/contract/nix/build.nix.test.ts");
    expect(files).not.toContain("tests/contract/oci/store.layout.test.ts");
  });

  test("that are repeated with a newer one are among them", async () => {
    const files = await filesWithNix();
    expect(REPEATED_WITH_NEWER_NIX.filter((file) => !files.includes(file))).toEqual([]);
  });
});
