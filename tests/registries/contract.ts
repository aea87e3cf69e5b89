/** The contract of stores on each real registry that is there: `bun run test:registries`. */
import { afterAll, beforeAll, describe } from "bun:test";
import { realHost } from "../contract/oci/helpers.ts";
import { describeStore } from "../contract/oci/store.contract.ts";
import { type RealRegistry, startRealRegistry } from "../support/real-registry.ts";
import { registriesUnderTest } from "../support/real-registry-names.ts";
import { openStoreOn } from "../support/registry-under-test.ts";

for (const name of registriesUnderTest()) {
  describe(name, () => {
    let registry: RealRegistry;
    let repositories = 0;

    beforeAll(async () => {
      registry = await startRealRegistry(name);
    });
    afterAll(() => registry?.close());

    describeStore(name, (body) => {
      const repository = `owner/contract-${++repositories}/nix-cache`;
      return body(() => openStoreOn(registry, repository, realHost));
    });
  });
}
