/**
 * Tokens as GHCR gives them: one refresh for all who wait, ahead of the end where it is known, after a 401 where it
 * is not, and never a word of them to another origin.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import { openStore } from "../../src/oci/open.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { type Cli, openCli } from "../support/cli.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import { IMPATIENT, logIn, USER } from "../support/hostile.ts";
import { downloadAll, hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { TestHost } from "../support/protocol.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { expectRefusal } from "../support/refusal.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const AT_ONCE = 20;
const ROUNDS = 5;
const NAME = "tokens";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "tokens", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let paths: readonly string[];
  let large: readonly string[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const { paths: small } = await buildClosure(nix, { paths: 40, seed: 40 });
    // Each is a blob of its own, which is fetched anew for each client: packs stay in memory.
    large = await Promise.all(
      Array.from({ length: AT_ONCE }, async (_, at) => {
        const file = join(nix.folder, `large-${at}`);
        await writeRandomFile(file, 1_100_000, at);
        return (await nix.run("nix-store", ["--add", file])).trim();
      }),
    );
    paths = [...small, ...large];
  });

  const tokenRequests = ({ log }: FaultProxy) => log.filter(({ origin }) => origin === "token").length;
  const refused = ({ log }: FaultProxy) => log.filter(({ status }) => status === 401).length;
  const publish = (proxy: FaultProxy, env = IMPATIENT) =>
    cli.run(["publish", ...paths, "--cache", `${proxy.host}/${NAME}`, "--upstream", ""], {
      env: { ...storeVariables(nix), ...env },
    });
  const serve = (proxy: FaultProxy) => {
    const env = { ...IMPATIENT, NIXCACHE_INDEX_DIR: cli.path(`index-${proxy.host}`) };
    return cli.serve(["--cache", `${proxy.host}/${NAME}`, "--upstream", ""], { env });
  };

  test("one token for a whole publish, one for a whole server, and one refresh for all who wait", async () => {
    const proxy = cleanup.add(
      await startFaultProxy({
        registry: registry.host,
        tokens: { user: USER, isPublic: false },
        redirects: true,
      }),
    );
    await logIn(cli, proxy.host);
    expect(await publish(proxy)).toMatchObject({ code: 0 });
    // The tag list and the root are asked for at once.
    expect([tokenRequests(proxy), refused(proxy)]).toEqual([1, 2]);

    const server = await serve(proxy);
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    await downloadAll(server, paths, nix);
    expect([tokenRequests(proxy), refused(proxy)]).toEqual([2, 4]);

    const urls = await Promise.all(
      large.map(async (path) => {
        const text = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
        return `/${parseNarInfo(text).url}`;
      }),
    );
    for (let round = 0; round < ROUNDS; round++) {
      const before = tokenRequests(proxy);
      proxy.expireTokens();
      // Else they would go on at the storage host, which knows no tokens.
      proxy.expireLinks();
      // None of them hears that the token has ended before all have sent it.
      let waiting = 0;
      const all = Promise.withResolvers<void>();
      proxy.before = async ({ origin }) => {
        if (origin === "registry" && ++waiting === AT_ONCE) all.resolve();
        if (origin === "registry" && waiting <= AT_ONCE) await all.promise;
      };
      const answers = await Promise.all(urls.map(async (url) => (await server.get(url)).status));
      expect(answers).toEqual(urls.map(() => 200));
      expect(tokenRequests(proxy) - before).toBe(1);
    }
    // Each client once, and a second window of it that was asked for with the same token.
    expect(refused(proxy)).toBeGreaterThanOrEqual(4 + ROUNDS * AT_ONCE);
    expect(refused(proxy)).toBeLessThanOrEqual(4 + 2 * ROUNDS * AT_ONCE);
    await server.stop();

    // What went to which origin.
    const secret = btoa(`${USER.name}:${USER.password}`);
    for (const { origin, authorization } of proxy.log) {
      if (origin === "storage") expect(authorization).toBeNull();
      else if (origin === "token") expect(authorization).toBe(`Basic ${secret}`);
      else if (authorization !== null) expect(authorization).toMatch(/^Bearer opaque_/);
    }
    expect(proxy.log.filter(({ origin }) => origin === "storage").length).toBeGreaterThan(100);
    expect(server.log()).not.toMatch(/opaque_|secret|sig=/);
  });

  test("tokens that end without notice after ten requests cost one refresh each, and nothing else", async () => {
    const proxy = cleanup.add(
      await startFaultProxy({ registry: registry.host, tokens: { user: USER, uses: 10 } }),
    );
    await logIn(cli, proxy.host);
    const server = await serve(proxy);
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    await downloadAll(server, paths, nix);
    await server.stop();
    const asked = proxy.log.filter(({ origin, status }) => origin === "registry" && status < 400).length;
    expect(tokenRequests(proxy)).toBe(Math.ceil(asked / 10));
    // By each token one request, or the two that were made at once.
    expect(refused(proxy)).toBeWithin(tokenRequests(proxy), 2 * tokenRequests(proxy) + 1);
  });

  test("a stated lifetime is renewed before its end, without a 401", async () => {
    const proxy = cleanup.add(
      await startFaultProxy({ registry: registry.host, tokens: { user: USER, expiresIn: 300 } }),
    );
    const host = new TestHost(Date.now());
    const store = openStore(parseReference(`${proxy.host}/${NAME}`), { host });
    await store.listTags();
    expect([tokenRequests(proxy), refused(proxy)]).toEqual([1, 1]);
    host.time += 280_000;
    await store.listTags();
    expect([tokenRequests(proxy), refused(proxy)]).toEqual([1, 1]);
    host.time += 15_000;
    await store.listTags();
    expect(tokenRequests(proxy)).toBe(2);
    expect(refused(proxy)).toBe(1);
  });

  test("a missing right and a package that one may not see are told apart, and no secret is said", async () => {
    const denied = cleanup.add(
      await startFaultProxy({ registry: registry.host, tokens: { user: USER, mayPush: false } }),
    );
    await logIn(cli, denied.host);
    const noRight = await publish(denied);
    expectRefusal(noRight, { code: 9, says: /not allowed to write to it with the credentials found/ });
    const hidden = cleanup.add(
      await startFaultProxy({ registry: registry.host, tokens: { user: USER, isPublic: false } }),
    );
    const nobody = await publish(hidden);
    expectRefusal(nobody, { code: 9, says: /without credentials/, hints: /docker login/ });
    for (const { stderr } of [noRight, nobody]) expect(stderr).not.toContain(USER.password);
    expect(denied.count("PUT", /./) + hidden.count("PUT", /./)).toBe(0);
  });
});
