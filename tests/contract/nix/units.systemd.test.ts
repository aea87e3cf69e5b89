/** The units that the modules make, read by the real systemd. It does not run here, so nothing is started. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { Cleanup } from "../../support/lease.ts";
import { evaluateModule, unitText, userUnitText } from "../../support/modules.ts";
import { describeWith, openNix } from "../../support/needs.ts";
import type { TestNix } from "../../support/nix.ts";

/** One that sets as much as there is to set. */
const OPTIONS = `{
  enable = true;
  repo = "Owner/Repo";
  caches = [ "/srv/a 100%$ cache" ];
  publicKey = "me-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
  upstreams = [ "https://a.example/%20" "https://b.example" ];
  writable = true;
  environmentFile = "/run/secrets/env";
  registryAuthFile = "/run/secrets/auth";
  signingKeyFile = "/run/secrets/key";
  writeTokenFile = "/run/secrets/token";
  narCache = { enable = true; directory = "/data/nars"; };
}`;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let nix: TestNix;

/** What systemd has to say against a unit. */
async function verify(text: string, ...flags: string[]): Promise<string> {
  const file = join(nix.folder, "nixcache-proxy.service");
  // systemd looks for the program.
  await Bun.write(file, text.replaceAll("/nix/store/nixcache/bin/nixcache", "/bin/sh"));
  const child = Bun.spawn(["systemd-analyze", ...flags, "verify", "--man=no", file], {
    // A manager of a user has its own there.
    env: { ...process.env, XDG_RUNTIME_DIR: nix.folder },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return stdout + stderr;
}

const nixosUnit = async (options: string) =>
  unitText((await evaluateModule(nix, "nixos", options)).systemd.services["nixcache-proxy"]);

describeWith(["nix", "systemd"], "the units", () => {
  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
  });

  test("NixOS: systemd understands every line", async () => {
    expect(await verify(await nixosUnit(OPTIONS))).toBe("");
  });

  test("home-manager: systemd understands every line", async () => {
    const home = await evaluateModule(nix, "home", OPTIONS);
    expect(await verify(userUnitText(home.systemd.user.services["nixcache-proxy"]), "--user")).toBe("");
  });

  test("a line that systemd does not understand is found", async () => {
    const unit = await nixosUnit(OPTIONS);
    expect(await verify(`${unit}ProtectEverything=true\n`)).toContain("ProtectEverything");
    expect(await verify(unit.replace("SystemCallFilter=@", "SystemCallFilter=@no-such-set-"))).toContain(
      "no-such-set",
    );
  });

  test("the unit is locked down: systemd's own score is at most 1.5 of 10", async () => {
    const file = join(nix.folder, "nixcache-proxy.service");
    const unit = await nixosUnit('{ enable = true; repo = "a/b"; requireSignatures = false; }');
    await Bun.write(file, unit);
    const args = ["security", "--offline=yes", "--threshold=15", "--no-pager", file];
    expect(await nix.run("systemd-analyze", args)).toContain("Overall exposure level");
  });
});
