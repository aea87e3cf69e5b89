/** One whole round on each real registry that there is: `bun run test:registries`. */
import { startRealRegistry } from "../support/real-registry.ts";
import { registriesUnderTest } from "../support/real-registry-names.ts";
import { describeRound } from "../support/registry-round.ts";

const MIB = 1024 ** 2;

for (const name of registriesUnderTest()) {
  describeRound(name, () => startRealRegistry(name), {
    paths: 201,
    largeBytes: 300 * MIB,
    requests: (counts) => console.log(`requests at ${name}: ${JSON.stringify(counts)}`),
  });
}
