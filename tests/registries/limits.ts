/** Real registries that take no writes, or few requests in a second: `bun run test:registries`. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { type Cli, type CliResult, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { openNix } from "../support/needs.ts";
import { buildClosure, type TestClosure, type TestNix } from "../support/nix.ts";
import { type RealRegistry, startRealRegistry } from "../support/real-registry.ts";
import { KINDS } from "../support/real-registry-kinds.ts";
import { registriesUnderTest } from "../support/real-registry-names.ts";
import { storeVariables } from "../support/substitute.ts";

/** As few as olareg's documents have in their example of a limit. */
const REQUESTS_A_SECOND = 5;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let closure: TestClosure;
let machines = 0;

beforeAll(async () => {
  cli = cleanup.add(await openCli());
  nix = cleanup.add(await openNix()).value;
  closure = await buildClosure(nix, { paths: 40, seed: 42 });
});

function run(...args: string[]): Promise<CliResult> {
  const index = { NIXCACHE_INDEX_DIR: cli.path(`machine-${++machines}`) };
  return cli.run(args, { env: { ...storeVariables(nix), ...index } });
}

const cacheOn = ({ host }: RealRegistry) => `${host}/owner/limits/nix-cache`;
const publish = (registry: RealRegistry, path: string) =>
  run("publish", path, "--cache", cacheOn(registry), "--upstream", "");
const succeeds = { code: 0 };

const names = registriesUnderTest();

describe.each(names.filter((name) => KINDS[name].has.includes("readOnly")))("%s, read-only", (name) => {
  test("takes no publish, which is told with what to do, and is read as ever", async () => {
    const registry = await startRealRegistry(name);
    try {
      const [path = ""] = closure.paths.filter((other) => other !== closure.root);
      expect(await publish(registry, path)).toMatchObject(succeeds);
      await registry.restart({ readOnly: true });
      const refused = await publish(registry, closure.root);
      expect(refused).toMatchObject({ code: 9, stderr: expect.stringMatching(/read-only|docker login/) });
      const verified = await run("verify", "--cache", cacheOn(registry), "--upstream", "");
      expect(verified).toMatchObject(succeeds);
    } finally {
      await registry.close();
    }
  });
});

describe.each(names.filter((name) => KINDS[name].has.includes("rateLimit")))(
  "%s, with a rate limit",
  (name) => {
    test(`of ${REQUESTS_A_SECOND} requests a second is published to, verified, copied and collected`, async () => {
      const registry = await startRealRegistry(name, { rateLimit: REQUESTS_A_SECOND });
      try {
        expect(await publish(registry, closure.root)).toMatchObject(succeeds);
        const verified = await run("verify", "--cache", cacheOn(registry), "--upstream", "");
        expect(verified).toMatchObject(succeeds);
        expect(await run("copy", cacheOn(registry), cli.path(`copy-of-${name}`))).toMatchObject(succeeds);
        expect(await run("gc", "--cache", cacheOn(registry))).toMatchObject(succeeds);
      } finally {
        await registry.close();
      }
    });
  },
);
