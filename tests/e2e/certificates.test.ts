/** TLS by a private authority, as companies have it: the real nginx in front of a registry and of an upstream. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { type Cli, openCli, type Variables } from "../support/cli.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { startNginx, type TestNginx } from "../support/nginx.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { storeVariables } from "../support/substitute.ts";

const TLS = join(ROOT, "tests", "fixtures", "tls");
const TRUSTED = { NIX_SSL_CERT_FILE: join(TLS, "authority.pem") };

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let nginx: TestNginx;
let registry: TestRegistry;
let path: string;

/** A publish of one path to the registry behind TLS. */
const publish = (env: Variables) =>
  cli.run(["publish", path, "--cache", `${nginx.url}/me/cache`, "--upstream", ""], {
    env: { ...storeVariables(nix), ...env },
  });

describeWith(["nix", "registry", "nginx"], "TLS by a private authority", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    const root = cli.path("upstream");
    await mkdir(root);
    nginx = cleanup.add(await startNginx({ root, tls: true, registry: registry.host }));
    path = await nix.build(shellDerivation("private", "echo content > $out"));
    await nix.run("nix", ["copy", "--to", `file://${root}`, path]);
  });

  test("a registry: published to and served from with NIX_SSL_CERT_FILE", async () => {
    expect(await publish(TRUSTED)).toMatchObject({ code: 0 });
    const args = ["--cache", `${nginx.url}/me/cache`, "--upstream", ""];
    const server = await cli.serve(args, { env: TRUSTED });
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    const narinfo = await (await server.get(`/${hashPart(path)}.narinfo`)).text();
    expect(narinfo).toContain(`StorePath: ${path}\n`);
    expect((await server.get(`/${/^URL: (.*)$/m.exec(narinfo)?.[1]}`)).status).toBe(200);
    await server.stop();
  });

  test("an upstream: passed on with NIX_SSL_CERT_FILE, absent without, and the log says why", async () => {
    const args = ["--cache", cli.path("cache"), "--upstream", nginx.url];
    const trusting = await cli.serve(args, { env: TRUSTED });
    expect((await trusting.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
    await trusting.stop();
    const other = await cli.serve(args);
    expect((await other.get(`/${hashPart(path)}.narinfo`)).status).toBe(404);
    await other.stop();
    expect(other.log()).toContain("unable to verify the first certificate");
  });

  test.each<[string, Variables]>([
    ["nobody is named", {}],
    ["another authority is named", { NIX_SSL_CERT_FILE: join(TLS, "other-authority.pem") }],
    [
      "another authority is named, whatever SSL_CERT_FILE says",
      { NIX_SSL_CERT_FILE: join(TLS, "other-authority.pem"), SSL_CERT_FILE: join(TLS, "authority.pem") },
    ],
  ])("a server is not trusted when %s", async (_, env) => {
    const { code, stderr } = await publish(env);
    expect(stderr).toContain("unable to verify the first certificate");
    expect(code).toBe(8);
  });

  test("doctor asks the registry as publish does", async () => {
    const ask = async (env: Variables) => {
      const args = ["doctor", "--cache", `${nginx.url}/me/cache`, "--json"];
      const { stdout } = await cli.run(args, { env: { ...storeVariables(nix), ...env } });
      const { findings } = JSON.parse(stdout) as { findings: { check: string; state: string }[] };
      return findings.find(({ check }) => check === "cache")?.state;
    };
    expect([await ask(TRUSTED), await ask({})]).toEqual(["ok", "wrong"]);
  });

  test("SSL_CERT_FILE counts where NIX_SSL_CERT_FILE is not set, or empty", async () => {
    const env = { NIX_SSL_CERT_FILE: "", SSL_CERT_FILE: join(TLS, "authority.pem") };
    expect(await publish(env)).toMatchObject({ code: 0 });
  });

  test("a file of authorities that is missing hurts neither folders nor what speaks plain HTTP here", async () => {
    const env = { ...storeVariables(nix), NIX_SSL_CERT_FILE: "/nowhere/bundle.crt" };
    for (const cache of [cli.path("folder"), `${registry.host}/plain`]) {
      const published = await cli.run(["publish", path, "--cache", cache, "--upstream", ""], { env });
      expect(published).toMatchObject({ code: 0 });
      const server = await cli.serve(["--cache", cache, "--upstream", nginx.url], { env });
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
      expect((await server.get(`/${hashPart(path)}.narinfo`)).status).toBe(200);
      expect((await server.get(`/${"0".repeat(32)}.narinfo`)).status).toBe(404);
      await server.stop();
      // Its upstream has TLS.
      expect(server.log()).toContain("NIX_SSL_CERT_FILE: cannot read /nowhere/bundle.crt");
    }
  });

  test("doctor and serve say what to do about a server that is not trusted", async () => {
    const cache = `${nginx.url}/me/cache`;
    const { stdout } = await cli.run(["doctor", "--cache", cache], { env: storeVariables(nix) });
    for (const words of ["no authority that is trusted here", "NIX_SSL_CERT_FILE"])
      expect(stdout).toContain(words);
    const server = await cli.serve(["--cache", cache, "--upstream", ""]);
    expect((await server.get("/_refresh", { method: "POST" })).status).toBe(502);
    await server.stop();
    expect(server.log()).toMatch(
      /could not be refreshed: .*no authority that is trusted here.*NIX_SSL_CERT_FILE/,
    );
  });

  test.each([
    ["/nowhere/bundle.crt", "cannot read /nowhere/bundle.crt"],
    [join(TLS, "README.md"), "with no certificate in it, expected certificate authorities"],
    [join(TLS, "server-key.pem"), "with no certificate in it, expected certificate authorities"],
  ])("NIX_SSL_CERT_FILE=%s is said to be wrong, at once", async (file, message) => {
    const { code, stderr } = await publish({ NIX_SSL_CERT_FILE: file, NIXCACHE_RETRY_ATTEMPTS: "8" });
    expect({ code, said: stderr.includes(message) }).toEqual({ code: 7, said: true });
    expect(stderr).toContain("Name a file of PEM certificates");
  });
});
