import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { type DumpOptions, dumpNar } from "../../../src/nar/dump.ts";
import { type NarFile, NarReader, type NarVisitor } from "../../../src/nar/reader.ts";
import { propertyParameters } from "../../support/seed.ts";
import { tree } from "./arbitrary-tree.ts";
import { bytesOf, concat, narOf, type Tree, treeOf } from "./archives.ts";
import { fixtureBytes, rejectionOf } from "./fixtures.ts";

let folder = "";
beforeAll(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "nixcache-dump-")));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let counter = 0;
const fresh = (): string => join(folder, `t${counter++}`);

async function dump(path: string | Uint8Array, options?: DumpOptions): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of dumpNar(path, options)) chunks.push(Buffer.from(chunk));
  return concat(...chunks);
}

/** Writes a tree to disk. Paths are Buffers, since names need not be UTF-8. */
function plant(path: Buffer, value: Tree): void {
  if (value.type === "symlink") symlinkSync(Buffer.from(value.target), path);
  else if (value.type === "directory") {
    mkdirSync(path);
    for (const [name, child] of value.entries) plant(Buffer.concat([path, Buffer.from("/"), name]), child);
  } else {
    writeFileSync(path, value.contents);
    chmodSync(path, value.executable ? 0o755 : 0o644);
  }
}

/** What a visitor was told, but for the contents of files. */
class Told implements NarVisitor {
  readonly calls: unknown[] = [];

  directory(name: Uint8Array | undefined): void {
    this.calls.push(["directory", hex(name)]);
  }

  endDirectory(): void {
    this.calls.push(["end"]);
  }

  regular(name: Uint8Array | undefined, file: NarFile): void {
    this.calls.push(["regular", hex(name), file]);
  }

  symlink(name: Uint8Array | undefined, target: Uint8Array): void {
    this.calls.push(["symlink", hex(name), hex(target)]);
  }
}

const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString("hex");

/** What reading the NAR tells. */
function readBy(nar: Uint8Array): unknown[] {
  const told = new Told();
  const reader = new NarReader(told);
  reader.write(nar);
  reader.end();
  return told.calls;
}

/** Of files below a path: what other tests have left open is closed at any time. */
function openBelow(path: string): number {
  const targets = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // Closed since it was listed.
      return "";
    }
  });
  return targets.filter((target) => target === path || target.startsWith(`${path}/`)).length;
}

describe("dumpNar", () => {
  test("the tree of the fixture, planted again, gives the bytes of `nix-store --dump`", async () => {
    const nar = fixtureBytes("tree.nar");
    const { root } = treeOf(nar);
    const path = fresh();
    if (root !== undefined) plant(Buffer.from(path), root);
    expect((await dump(path)).toHex()).toBe(nar.toHex());
  });

  test("any tree", async () => {
    await fc.assert(
      fc.asyncProperty(tree, async (value) => {
        const path = Buffer.from(fresh());
        plant(path, value);
        const nar = narOf(value);
        const told = new Told();
        expect(Buffer.from(await dump(path, { visitor: told })).toString("hex")).toBe(
          Buffer.from(nar).toString("hex"),
        );
        expect(told.calls).toEqual(readBy(nar));
        rmSync(path.toString(), { recursive: true, force: true });
      }),
      { ...propertyParameters(), numRuns: 60 },
    );
  });

  // Around the first chunk of 64 KiB, the border of large files, and whole chunks of 1 MiB.
  const sizes = [
    0, 1, 7, 8, 9, 65_535, 65_536, 65_439, 65_440, 65_441, 262_143, 262_144, 1_048_576, 3_000_000,
  ];
  test.each(sizes)("a file of %d bytes", async (size) => {
    const path = fresh();
    const contents = Buffer.alloc(size);
    for (let index = 0; index < size; index++) contents[index] = index * 7 + (index >> 8);
    writeFileSync(path, contents);
    const expected = narOf({ type: "regular", executable: false, contents });
    expect(Buffer.compare(await dump(path), expected)).toBe(0);
  });

  test("chunks are of about 1 MiB: small files share one, a large one is cut", async () => {
    const path = fresh();
    mkdirSync(path);
    for (let index = 0; index < 2000; index++) writeFileSync(join(path, `${index}`), "x".repeat(500));
    writeFileSync(join(path, "large"), Buffer.alloc(5_000_000));
    const sizes: number[] = [];
    for await (const chunk of dumpNar(path)) sizes.push(chunk.length);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(1024 * 1024);
    expect(Math.min(...sizes.slice(1, -1))).toBeGreaterThan(1000 * 1024);
  });

  test("a large file takes the memory of one chunk, which is used again", async () => {
    const path = fresh();
    writeFileSync(path, Buffer.alloc(5_000_000, 1));
    const memory = new Set<ArrayBufferLike>();
    for await (const chunk of dumpNar(path)) memory.add(chunk.buffer);
    expect(memory.size).toBeLessThanOrEqual(2);
  });

  test.each([
    [0o644, false],
    [0o744, true],
    [0o100, true],
    [0o655, false],
    [0o611, false],
    [0o4755, true],
  ])("mode %o: executable is the owner's bit", async (mode, executable) => {
    const path = fresh();
    writeFileSync(path, "x");
    chmodSync(path, mode);
    // Root reads any file; another user not one of mode 0100.
    if (process.getuid?.() !== 0 && (mode & 0o400) === 0) return;
    expect(await dump(path)).toEqual(narOf({ type: "regular", executable, contents: bytesOf("x") }));
  });

  test("a folder deeper than 64 levels is dumped", async () => {
    const path = fresh();
    mkdirSync(join(path, ...Array(80).fill("d")), { recursive: true });
    let expected: Tree = { type: "directory", entries: [] };
    for (let level = 0; level < 80; level++)
      expected = { type: "directory", entries: [[bytesOf("d"), expected]] };
    expect(await dump(path)).toEqual(narOf(expected));
  });
});

describe("the case hack of macOS", () => {
  const names = (nar: Uint8Array): string[] => {
    const { root } = treeOf(nar);
    return root?.type === "directory" ? root.entries.map(([name]) => new TextDecoder().decode(name)) : [];
  };

  test("suffixes are stripped and the order is that of the names without them", async () => {
    const path = fresh();
    mkdirSync(path);
    for (const name of ["a~nix~case~hack~1", "A", "b", "a~", "a-"]) writeFileSync(join(path, name), name);
    expect(names(await dump(path, { caseHack: true }))).toEqual(["A", "a", "a-", "a~", "b"]);
    expect(names(await dump(path, { caseHack: false }))).toEqual(["A", "a-", "a~", "a~nix~case~hack~1", "b"]);
  });

  test("two names that become one are refused", async () => {
    const path = fresh();
    mkdirSync(path);
    for (const name of ["x~nix~case~hack~1", "x"]) writeFileSync(join(path, name), name);
    const error = await rejectionOf(dump(path, { caseHack: true }));
    expect(error.code).toBe("filesystem");
    expect(error.message).toContain("are the same name without ~nix~case~hack~");
  });
});

describe("what cannot be dumped", () => {
  test("a path that is not there", async () => {
    const path = fresh();
    const error = await rejectionOf(dump(path));
    expect(error.code).toBe("filesystem");
    expect(error.message).toStartWith(`dump ${JSON.stringify(path)}: ENOENT`);
  });

  test("a fifo, wherever it is, and without waiting for a writer", async () => {
    const path = fresh();
    mkdirSync(path);
    writeFileSync(join(path, "a"), "x");
    expect(Bun.spawnSync(["mkfifo", join(path, "pipe")]).exitCode).toBe(0);
    const error = await rejectionOf(dump(path));
    expect(error.message).toBe(
      `dump ${JSON.stringify(join(path, "pipe"))}: got a fifo, expected a regular file, a symlink or a directory`,
    );
  });

  test("a socket", async () => {
    const path = fresh();
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      expect((await rejectionOf(dump(path))).message).toContain("got a socket");
    } finally {
      server.close();
    }
  });

  test("a device", async () => {
    expect((await rejectionOf(dump("/dev/null"))).message).toContain("got a device");
  });

  // The reader is in the middle of the file when the first chunk is handed out. The second size ends with a
  // chunk, where the reader could stop without having seen the end of the file.
  const changes: [string, (path: string) => void][] = [
    ["grows", (path) => appendFileSync(path, "x")],
    ["shrinks", (path) => truncateSync(path, 2_000_000)],
    ["becomes empty", (path) => truncateSync(path, 0)],
  ];
  const lengths = [4 * 1024 * 1024, 64 * 1024 - 96 + 3 * 1024 * 1024];
  test.each(changes.flatMap(([what, change]) => lengths.map((size) => [size, what, change] as const)))(
    "a file of %d bytes that %s while it is read",
    async (size, _, change) => {
      const path = fresh();
      writeFileSync(path, Buffer.alloc(size, 1));
      const dumping = (async () => {
        let first = true;
        for await (const _chunk of dumpNar(path)) {
          if (first) change(path);
          first = false;
        }
      })();
      const error = await rejectionOf(dumping);
      expect(error.code).toBe("filesystem");
      expect(error.message).toContain(JSON.stringify(path));
      expect(error.message).toContain(`changed while it was read, expected ${size} bytes`);
      expect(openBelow(path)).toBe(0);
    },
  );

  test("who stops early leaves no open file behind", async () => {
    const path = fresh();
    mkdirSync(path);
    writeFileSync(join(path, "large"), Buffer.alloc(4 * 1024 * 1024));
    for (let round = 0; round < 20; round++) {
      for await (const chunk of dumpNar(path)) {
        expect(chunk.length).toBeGreaterThan(0);
        expect(openBelow(path)).toBe(1);
        break;
      }
    }
    expect(openBelow(path)).toBe(0);
  });
});
