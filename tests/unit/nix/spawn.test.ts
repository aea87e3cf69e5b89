import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmodSync, closeSync, copyFileSync, mkdtempSync, openSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";
import { runCommand } from "../../../src/nix/command.ts";
import { runLines } from "../../../src/nix/lines.ts";
import { inBatches, MAX_ARGUMENT_BYTES, startProgram } from "../../../src/nix/spawn.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-spawn-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function program(name: string, text: string | Uint8Array, mode: number): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  chmodSync(file, mode);
  return name;
}

function failureOf(argv: readonly string[], options: { cwd?: string; env?: Record<string, string> } = {}) {
  const env = options.env ?? { PATH: folder };
  try {
    startProgram(argv, env, { stdout: "ignore", cwd: options.cwd });
  } catch (error) {
    if (error instanceof NixcacheError) return { code: error.code, message: error.message, hint: error.hint };
    throw error;
  }
  throw new Error(`${argv[0]} was started`);
}

describe("why a program cannot be started", () => {
  test("it is not installed", () => {
    expect(failureOf(["nix-nowhere"])).toEqual({
      code: "nix-store",
      message: "cannot run `nix-nowhere`: it is not in PATH",
      hint: expect.stringContaining("Install Nix"),
    });
    expect(failureOf(["nix"], { env: {} }).message).toContain("it is not in PATH");
  });

  test("it is no program for this user", () => {
    const name = program("plain", "#!/bin/sh\n", 0o644);
    const { message, hint } = failureOf([name]);
    expect(message).toBe(
      `cannot run \`plain\`: ${join(folder, "plain")} is no program that this user may run`,
    );
    expect(hint).toStartWith("Check the rights of the program");
  });

  test("its interpreter is gone", () => {
    const name = program("no-interpreter", "#!/no/such/interpreter\n", 0o755);
    const { message, hint } = failureOf([name]);
    expect(message).toContain("is there, and what runs it is not");
    expect(hint).toContain("interpreter or loader");
  });

  test("the folder that it should run in is gone", () => {
    const name = program("fine", "#!/bin/sh\n", 0o755);
    const { message } = failureOf([name], { cwd: join(folder, "gone") });
    expect(message).toBe(`cannot run \`fine\`: the folder ${join(folder, "gone")} does not exist`);
  });

  test("it is for another machine", () => {
    const name = program("foreign", new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1, 0]), 0o755);
    expect(failureOf([name]).message).toContain("it is no program for this machine");
  });

  test("it is being written", () => {
    const file = join(folder, "busy");
    copyFileSync("/bin/true", file);
    chmodSync(file, 0o755);
    const open = openSync(file, "r+");
    try {
      expect(failureOf(["busy"])).toMatchObject({
        message: "cannot run `busy`: it is being written",
        hint: "Try again once whatever installs Nix is done.",
      });
    } finally {
      closeSync(open);
    }
  });

  test("its arguments or the environment are too long", () => {
    const name = program("long", "#!/bin/sh\n", 0o755);
    const long = "x".repeat(MAX_ARGUMENT_BYTES);
    for (const failure of [failureOf([name, long]), failureOf([name], { env: { PATH: folder, long } })]) {
      expect(failure.message).toContain(
        "its arguments and the environment are longer than this system allows",
      );
      expect(failure.hint).not.toContain("Install Nix");
    }
  });

  test("both ways of running say so", async () => {
    const argv = ["nix-nowhere"];
    expect(runCommand(argv, { PATH: folder })).rejects.toThrow("it is not in PATH");
    await expect(runLines(argv, { env: { PATH: folder }, onLine() {} })).rejects.toThrow("it is not in PATH");
  });
});

describe("a list for a command", () => {
  const tooLong = () => new NixcacheError("nix-store", "too long", { cause: { code: "E2BIG" } });

  /** Runs on a system that takes `bytes` of arguments. */
  async function batchesOf(items: readonly string[], bytes: number): Promise<string[][]> {
    const run: string[][] = [];
    await inBatches(items, async (batch) => {
      if (batch.reduce((sum, item) => sum + Buffer.byteLength(item), 0) > bytes) throw tooLong();
      run.push([...batch]);
    });
    return run;
  }

  test("goes to one command where it fits, and to none when it is empty", async () => {
    expect(await batchesOf(["a", "b", "c"], 100)).toEqual([["a", "b", "c"]]);
    expect(await batchesOf([], 100)).toEqual([]);
  });

  test("is cut where it is longer than any system takes", async () => {
    const items = Array.from({ length: 20_000 }, (_, index) => `${index}`.padStart(100, "x"));
    const batches = await batchesOf(items, Number.POSITIVE_INFINITY);
    expect(batches.flat()).toEqual(items);
    expect(batches.length).toBe(3);
  });

  test("is halved until the system takes it, in its order, each item once", async () => {
    const items = Array.from({ length: 1000 }, (_, index) => `${index}`.padStart(index % 50, "é"));
    for (const bytes of [100, 1000, 10_000]) expect((await batchesOf(items, bytes)).flat()).toEqual(items);
  });

  test("with an item that fits nowhere is an error, as is every other failure", async () => {
    expect(batchesOf(["a", "long"], 3)).rejects.toThrow("too long");
    let calls = 0;
    const run = async () => {
      calls++;
      throw new Error("other");
    };
    await expect(inBatches(["a", "b"], run)).rejects.toThrow("other");
    expect(calls).toBe(1);
  });

  test("of 3 MiB reaches real programs", async () => {
    const items = Array.from({ length: 30_000 }, (_, index) => `${index}`.padStart(100, "x"));
    const said: string[] = [];
    await inBatches(items, async (batch) => {
      const { stdout } = await runCommand(["echo", ...batch], { PATH: process.env.PATH });
      said.push(...stdout.trim().split(" "));
    });
    expect(said).toEqual(items);
  });
});
