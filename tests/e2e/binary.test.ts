/** The compiled executable itself. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import packageJson from "../../package.json" with { type: "json" };
import { type Cli, openCli } from "../support/cli.ts";

let cli: Cli;

beforeAll(async () => {
  cli = await openCli();
});
afterAll(() => cli.close());

test("--version says version and commit", async () => {
  for (const flag of ["--version", "-v"]) {
    const { code, stdout } = await cli.run([flag]);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      new RegExp(`^nixcache ${packageJson.version} \\(([0-9a-f]{12}(-dirty)?|unknown)\\)\\n$`),
    );
  }
});

test.each([[[]], [["serve"]], [["publish"]], [["keygen"]]])(
  "%j --help goes to standard output, without colours",
  async (command) => {
    for (const flag of ["--help", "-h"]) {
      const { code, stdout, stderr } = await cli.run([...command, flag]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      expect(stdout).toContain("USAGE nixcache");
      expect(stdout).not.toContain("\u001b");
    }
  },
);

test("a .env and a bunfig.toml in the current folder are not read", async () => {
  const cwd = cli.path("trap");
  await mkdir(cwd);
  await writeFile(`${cwd}/.env`, "NIXCACHE_CACHE=foo\nNIXCACHE_PORT=nonsense\n");
  await writeFile(`${cwd}/bunfig.toml`, 'preload = ["./trap.ts"]\n');
  await writeFile(`${cwd}/trap.ts`, `await Bun.write(${JSON.stringify(`${cwd}/sprung`)}, "");\n`);
  await writeFile(`${cwd}/tsconfig.json`, "{ nonsense");
  await writeFile(`${cwd}/package.json`, "{ nonsense");
  const server = await cli.serve(["--upstream", ""], { cwd });
  const status = (await (await server.get("/_status")).json()) as { repo: string };
  expect(status.repo).toBe(cli.path("xdg-data", "nixcache", "cache"));
  await server.stop();
  expect(await Bun.file(`${cwd}/sprung`).exists()).toBe(false);
});

test("serve ends with status 0 on SIGTERM, while a client keeps its connection open", async () => {
  const server = await cli.serve(["--cache", cli.path("cache"), "--upstream", ""]);
  await (await server.get("/_status")).text();
  expect(await server.stop()).toBe(0);
});
