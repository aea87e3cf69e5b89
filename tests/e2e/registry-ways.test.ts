/** One whole round with doubles of those registries whose ways differ most: `bun run test:registries` has the real ones. */
import { describeWith } from "../support/needs.ts";
import { describeRound } from "../support/registry-round.ts";
import { GITEA, ZOT } from "../support/registry-ways.ts";
import { startWithWays } from "../support/ways-proxy.ts";

const MIB = 1024 ** 2;

describeWith(["nix", "registry"], "registries with ways of their own", () => {
  for (const [name, ways] of [
    ["a double of Gitea", GITEA],
    ["a double of zot", ZOT],
  ] as const)
    describeRound(name, () => startWithWays(name, ways), { paths: 24, largeBytes: 3 * MIB });
});
