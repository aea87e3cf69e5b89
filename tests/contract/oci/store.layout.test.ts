import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openLayout } from "../../../src/oci/layout.ts";
import { realHost } from "./helpers.ts";
import { describeStore } from "./store.contract.ts";

describeStore("layout", async (body) => {
  const folder = await mkdtemp(join(tmpdir(), "nixcache-test-layout-"));
  try {
    await body(() => openLayout(join(folder, "cache"), { host: realHost }));
  } finally {
    await rm(folder, { recursive: true });
  }
});
