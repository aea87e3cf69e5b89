/**
 * The package, built by the real Nix in its sandbox without network, and what it builds: it publishes and serves, and
 * Nix substitutes with the settings of the NixOS module.
 *
 * Doubles: a stdenv that runs the phases with this machine's programs (`tests/support/nixpkgs`), with the Bun that runs
 * the tests, and npm's tarballs packed anew from node_modules, so that their hashes are not those of bun.lock.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { ROOT } from "../../scripts/process.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { evaluate, evaluateModule, STAND_IN } from "../support/modules.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const COMMIT = "0123456789ab";
const PACKAGE = join(ROOT, "nix", "nixpkgs", "package.nix");
/** What a build reads of a checkout. */
const SOURCES = [
  ...[".github/workflows", "LICENSE", "bun.lock", "bunfig.toml", "config/flake.nix", "package.json"],
  ...["scripts", "src", "tsconfig.json"],
];

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let cli: Cli;
let nix: TestNix;
let program: string;

/** Packs what `bun install` has laid out as npm does: below a folder called `package`. */
async function packTarballs(folder: string): Promise<void> {
  const expression = `map (p: { inherit (p) folder url; })
    (builtins.attrValues (import ${ROOT}/nix/bun-lock.nix (builtins.readFile ${ROOT}/bun.lock)).packages)`;
  const packages = JSON.parse(await evaluate(nix, expression)) as { folder: string; url: string }[];
  await mkdir(folder);
  for (const { folder: name, url } of packages) {
    const source = join(ROOT, "node_modules", name);
    if (!(await Bun.file(join(source, "package.json")).exists())) continue;
    const file = join(folder, url.split("/").at(-1) ?? "");
    const args = ["--create", "--gzip", "--file", file, "--transform", "s,^\\.,package,"];
    await nix.run("tar", [...args, "--directory", source, "--exclude", "./node_modules", "."]);
  }
}

describeWith(["nix"], "the package, built", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    const bun = join(nix.folder, "bun");
    await mkdir(join(bun, "bin"), { recursive: true });
    await cp(process.execPath, join(bun, "bin", "bun"));
    const tarballs = join(nix.folder, "tarballs");
    await packTarballs(tarballs);
    const pkgs = `import ${STAND_IN} { bun = builtins.path { path = ${bun}; name = "bun"; }; tarballs = ${tarballs}; }`;
    const out = await nix.build(
      `(import ${ROOT} { pkgs = ${pkgs}; commit = "${COMMIT}"; date = "2026-11-23"; }).default`,
    );
    program = join(nix.realPath(out), "bin", "nixcache");
  }, 240_000);

  test("it knows its version and its commit", async () => {
    const { stdout } = await cli.run(["--version"], { program: [program] });
    expect(stdout).toBe(`nixcache ${packageJson.version} (${COMMIT})\n`);
  });

  test("completions and the man page are where shells and man look for them", async () => {
    const share = join(program, "..", "..", "share");
    for (const [file, text] of [
      ["bash-completion/completions/nixcache.bash", "complete "],
      ["zsh/site-functions/_nixcache", "#compdef nixcache"],
      ["fish/vendor_completions.d/nixcache.fish", "complete -c nixcache"],
      ["man/man1/nixcache.1", "2026-11-23"],
    ] as const)
      expect(await Bun.file(join(share, file)).text()).toContain(text);
  });

  test("it names nothing of what it was built from", async () => {
    const out = program.slice((nix.root ?? "").length).replace("/bin/nixcache", "");
    expect((await nix.run("nix-store", ["--query", "--references", out])).trim()).toBe("");
  });

  test("as nixpkgs would have it: its dependencies have the hash that stands there, and it builds", async () => {
    const source = join(nix.folder, "checkout");
    for (const name of SOURCES) await cp(join(ROOT, name), join(source, name), { recursive: true });
    const dependencies = join(nix.folder, `nixcache-node-modules-${packageJson.version}`);
    await mkdir(dependencies);
    for (const name of ["package.json", "bun.lock", "bunfig.toml"])
      await cp(join(ROOT, name), join(dependencies, name));
    const install = /bun (install .*)/.exec(await Bun.file(PACKAGE).text())?.[1] ?? "";
    await nix.run(process.execPath, install.replaceAll("'", "").split(" "), {
      cwd: dependencies,
      // As a builder: without what earlier installations have left.
      env: { BUN_INSTALL_CACHE_DIR: join(nix.folder, "bun-cache") },
    });
    await rename(join(dependencies, "node_modules"), join(nix.folder, "modules"));
    await rm(dependencies, { recursive: true });
    await rename(join(nix.folder, "modules"), dependencies);
    // The sandbox has no network: what the fetch would make is there under the hash that it must have.
    await nix.run("nix-store", ["--add-fixed", "--recursive", "sha256", dependencies]);
    const bun = `bun = builtins.path { path = ${join(nix.folder, "bun")}; name = "bun"; };`;
    const checkout = `checkout = builtins.path { path = ${source}; name = "source"; };`;
    const pkgs = `import ${STAND_IN} { ${bun} ${checkout} }`;
    const out = await nix.build(`let pkgs = ${pkgs}; in pkgs.callPackage ${PACKAGE} { }`);
    const { stdout } = await cli.run(["--version"], {
      program: [join(nix.realPath(out), "bin", "nixcache")],
    });
    expect(stdout).toBe(`nixcache ${packageJson.version} (v${packageJson.version})\n`);
  }, 240_000);

  describe("serving", () => {
    let server: CliServer;
    let signed: string;
    let unsigned: string;
    let key: string;

    beforeAll(async () => {
      await cli.run(["keygen", "built-1", cli.path("secret"), cli.path("public")], { program: [program] });
      key = (await Bun.file(cli.path("public")).text()).trim();
      signed = await nix.build(shellDerivation("signed", "echo signed > $out"));
      unsigned = await nix.build(shellDerivation("unsigned", "echo unsigned > $out"));
      const to = ["--cache", cli.path("cache"), "--upstream", ""];
      for (const args of [[signed, "--signing-key-file", cli.path("secret")], [unsigned]]) {
        const options = { env: storeVariables(nix), program: [program] };
        expect(await cli.run(["publish", ...args, ...to], options)).toMatchObject({ code: 0 });
      }
      server = await cli.serve(to, { program: [program] });
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    });
    afterAll(() => server?.stop());

    /** Substitutes into an empty store, configured as the module configures Nix. @returns what the path holds */
    async function realise(path: string, options: string): Promise<string> {
      const port = new URL(server.url).port;
      const given = `{ enable = true; repo = "a/b"; port = ${port}; publicKey = "${key}"; ${options} }`;
      const { failed, nix: configured } = await evaluateModule(nix, "nixos", given);
      expect(failed).toEqual([]);
      const { substituters, "trusted-public-keys": keys } = configured.settings as Record<string, string[]>;
      // cache.nixos.org, the second, would be asked over the network.
      const settings = {
        substituters: [substituters?.[0]],
        "trusted-public-keys": keys,
        "require-sigs": ["true"],
      };
      const root = await nix.emptyStore();
      const env = {
        NIX_REMOTE: root,
        XDG_CACHE_HOME: `${root}-cache`,
        NIX_CONFIG: Object.entries(settings)
          .map(([name, values]) => `${name} = ${values?.join(" ")}`)
          .join("\n"),
      };
      await nix.run("nix-store", ["--realise", path], { env });
      return Bun.file(nix.realPath(path, root)).text();
    }

    test("what is signed is taken with the module's settings", async () => {
      expect(await realise(signed, "")).toBe("signed\n");
    });

    test("what is not is refused, and taken without requireSignatures", async () => {
      await expect(realise(unsigned, "")).rejects.toThrow("not signed by any of the keys");
      expect(await realise(unsigned, "requireSignatures = false;")).toBe("unsigned\n");
    });
  });
});
