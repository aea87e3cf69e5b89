import { describe, expect, test } from "bun:test";
import { ensureParts, type PartsHost } from "../../../scripts/parts.ts";

/** A machine with some programs, that may be able to install others. */
function machine(there: string[], installs?: Record<string, string>) {
  const programs = new Set(there);
  const said: string[] = [];
  const installed: string[][] = [];
  const host: PartsHost = {
    isThere: (program) => programs.has(program),
    canInstall: () => installs !== undefined,
    install: async (packages) => {
      installed.push([...packages]);
      for (const name of packages) {
        const program = installs?.[name];
        if (program !== undefined) programs.add(program);
      }
      return true;
    },
    say: (sentence) => said.push(sentence),
  };
  return { host, said, installed };
}

describe("ensureParts", () => {
  test("says nothing when all is there", async () => {
    const { host, said, installed } = machine(["nix-store", "skopeo"]);
    expect(await ensureParts(["nix", "skopeo"], { host })).toEqual([]);
    expect(said).toEqual([]);
    expect(installed).toEqual([]);
  });

  test("installs what is missing, all at once", async () => {
    const { host, said, installed } = machine(["skopeo"], {
      "nix-bin": "nix-store",
      "docker-registry": "docker-registry",
    });
    expect(await ensureParts(["nix", "registry", "skopeo"], { host })).toEqual([]);
    expect(installed).toEqual([["nix-bin", "docker-registry"]]);
    expect(said).toEqual(["Installing nix-bin, docker-registry …"]);
  });

  test("one sentence says what to install where it cannot", async () => {
    const { host } = machine([]);
    await expect(ensureParts(["nix"], { host })).rejects.toThrow(
      /^`nix-store` \(the Nix package manager\) is missing: install with `apt-get install nix-bin`, or .*\.$/,
    );
    await expect(ensureParts(["nix", "skopeo"], { host })).rejects.toThrow(
      "are missing: install with `apt-get install nix-bin skopeo`",
    );
  });

  test("an installation that did not bring the program is no success", async () => {
    const { host } = machine([], {});
    await expect(ensureParts(["skopeo"], { host })).rejects.toThrow(
      "`skopeo` (copies OCI images) is missing",
    );
  });

  test("optional parts that are missing are named and returned", async () => {
    const { host, said } = machine(["skopeo"]);
    expect(await ensureParts(["nix", "skopeo"], { host, optional: true })).toEqual(["nix"]);
    expect(said.length).toBe(1);
  });
});
