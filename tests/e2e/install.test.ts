/** `scripts/install.sh` on each platform that there is a release for. Doubles: `uname` and `ldd` say which it is. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, readdirSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { PLATFORMS } from "../../scripts/release.ts";

const SYSTEMS: Readonly<Record<keyof typeof PLATFORMS, readonly [string, string, string]>> = {
  "x86_64-linux": ["Linux", "x86_64", "ldd (GNU libc) 2.36"],
  "aarch64-linux": ["Linux", "aarch64", "ldd (GNU libc) 2.36"],
  "x86_64-linux-musl": ["Linux", "x86_64", "musl libc (x86_64)"],
  "x86_64-darwin": ["Darwin", "x86_64", ""],
  "aarch64-darwin": ["Darwin", "arm64", ""],
};

let folder: string;
let site: Bun.Server<undefined>;
const files = new Map<string, Uint8Array<ArrayBuffer>>();

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nixcache-test-install-"));
  const sums: string[] = [];
  for (const platform of Object.keys(PLATFORMS)) {
    const name = `nixcache-${platform}.tar.gz`;
    const archive = Bun.gzipSync(await new Bun.Archive({ LICENSE: "words", nixcache: platform }).bytes());
    files.set(`/v1.2.3/${name}`, archive);
    sums.push(`${new Bun.CryptoHasher("sha256").update(archive).digest("hex")}  ${name}\n`);
  }
  files.set("/v1.2.3/SHA256SUMS", Buffer.from(sums.join("")));
  site = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: ({ url }) => {
      const file = files.get(new URL(url).pathname);
      return new Response(file ?? null, { status: file ? 200 : 404 });
    },
  });
});

afterAll(async () => {
  await site.stop(true);
  await rm(folder, { recursive: true });
});

async function install(
  name: string,
  [system, machine, libc]: readonly [string, string, string],
  version = "v1.2.3",
) {
  const [bin, target, temporary] = ["bin", "target", "tmp"].map((part) => join(folder, name, part)) as [
    string,
    string,
    string,
  ];
  await mkdir(bin, { recursive: true });
  await mkdir(temporary);
  await writeFile(join(bin, "uname"), `#!/bin/sh\n[ "$1" = -s ] && echo ${system} || echo ${machine}\n`);
  await writeFile(join(bin, "ldd"), `#!/bin/sh\necho "${libc}"\n`);
  for (const program of ["uname", "ldd"]) await chmod(join(bin, program), 0o755);
  const child = Bun.spawn([join(ROOT, "scripts", "install.sh"), version, target], {
    env: {
      PATH: `${bin}:${process.env.PATH}`,
      TMPDIR: temporary,
      NIXCACHE_RELEASES: `http://127.0.0.1:${site.port}`,
    },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [said, code] = await Promise.all([child.stderr.text(), child.exited]);
  const file = join(target, "nixcache");
  const installed = existsSync(file) ? await Bun.file(file).text() : undefined;
  expect(readdirSync(temporary)).toEqual([]);
  return { code, said, installed };
}

test.each(Object.entries(SYSTEMS))("%s", async (platform, system) => {
  expect(await install(platform, system)).toEqual({ code: 0, said: "", installed: platform });
});

test("a platform without a release", async () => {
  const { code, said, installed } = await install("bsd", ["FreeBSD", "amd64", ""]);
  expect({ code, installed }).toEqual({ code: 1, installed: undefined });
  expect(said).toContain("there is no release for FreeBSD on amd64");
});

test("an archive that is not the release's", async () => {
  const name = "/v1.2.3/nixcache-aarch64-darwin.tar.gz";
  files.set(name, files.get("/v1.2.3/nixcache-x86_64-darwin.tar.gz") as Uint8Array<ArrayBuffer>);
  const { code, said, installed } = await install("swapped", SYSTEMS["aarch64-darwin"]);
  expect({ code, installed }).toEqual({ code: 1, installed: undefined });
  expect(said).toContain("has another checksum than its release states");
});

test("a version that there is not", async () => {
  const { code, said, installed } = await install("absent", SYSTEMS["x86_64-linux"], "v9.9.9");
  expect({ code: code !== 0, installed }).toEqual({ code: true, installed: undefined });
  expect(said).toContain("404");
});
