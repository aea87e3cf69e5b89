import { describe, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hookScript } from "../../../src/nix/post-build-hook.ts";
import { Queue } from "../../../src/watch/queue.ts";
import { storePath } from "../../support/nix-database.ts";

const [a, b, c] = [storePath("a"), storePath("b"), storePath("c")];

function withFolder(body: (folder: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "nixcache-test-queue-"));
  try {
    body(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const contents = (queue: Queue) => Object.fromEntries(queue.read());

describe("the queue", () => {
  test("keeps what is appended until it is removed, whoever opens it", () => {
    withFolder((folder) => {
      const queue = new Queue(join(folder, "deep", "queue"), () => []);
      expect(statSync(join(folder, "deep", "queue")).mode & 0o077).toBe(0);
      queue.append("run", [a]);
      queue.append("run", [b]);
      queue.append("other", [c]);
      const again = new Queue(join(folder, "deep", "queue"), () => []);
      expect(contents(again)).toEqual({ run: [a, b], other: [c] });
      again.remove("run");
      again.remove("run");
      expect(contents(queue)).toEqual({ other: [c] });
    });
  });

  test.each<[string, string, string[] | undefined]>([
    ["a line that is not whole", `${a}\n${b.slice(0, -1)}`, [a]],
    ["nothing but the beginning of a line", b, undefined],
    ["what is no store path", `${a}\n/etc/passwd\n../x\n\n${"x".repeat(5000)}\n${b}\n`, [a, b]],
    ["nothing", "", undefined],
  ])("does not take %s for an announcement", (_, text, paths) => {
    withFolder((folder) => {
      const queue = new Queue(folder, () => [c]);
      writeFileSync(join(queue.folder, "file"), text);
      expect(queue.read().get("file")).toEqual(paths as string[]);
    });
  });

  test("a folder that cannot be made is an error that names it", () => {
    withFolder((folder) => {
      writeFileSync(join(folder, "file"), "");
      expect(() => new Queue(join(folder, "file"), () => [])).toThrow(
        /cannot make the queue .*\/file\/built/,
      );
    });
  });
});

describe("the hook's script", () => {
  const drv = storePath("thing.drv");
  const run = (script: string, env: Record<string, string>) => {
    const { exitCode, stdout, stderr } = Bun.spawnSync([script], { env: { ...env, PATH: "/nowhere" } });
    return { exitCode, output: stdout.toString() + stderr.toString() };
  };

  test("writes the outputs of a derivation, by the shell's own means", () => {
    withFolder((folder) => {
      const queue = new Queue(join(folder, 'it\'s $(a) "folder"'), () => [c]);
      const hook = queue.writeHook(hookScript(queue.folder));
      expect(run(hook, { DRV_PATH: drv, OUT_PATHS: `${a} ${b}` })).toEqual({ exitCode: 0, output: "" });
      expect(contents(queue)).toEqual({ [drv.slice("/nix/store/".length)]: [a, b] });
      // Whoever publishes is somebody else than the daemon that runs it.
      expect(statSync(join(queue.folder, drv.slice("/nix/store/".length))).mode & 0o044).toBe(0o044);
    });
  });

  test("a Nix that does not say the outputs: they are the derivation's", () => {
    withFolder((folder) => {
      const queue = new Queue(folder, (path) => (path === drv ? [c] : []));
      const hook = queue.writeHook(hookScript(queue.folder));
      expect(run(hook, { DRV_PATH: drv, OUT_PATHS: "" }).exitCode).toBe(0);
      expect([...queue.read().values()]).toEqual([[c]]);
    });
  });

  test("never fails, and says nothing", () => {
    withFolder((folder) => {
      const queue = new Queue(folder, () => []);
      const hook = queue.writeHook(hookScript(queue.folder));
      expect(run(hook, {})).toEqual({ exitCode: 0, output: "" });
      chmodSync(queue.folder, 0o500);
      expect(run(hook, { DRV_PATH: drv, OUT_PATHS: a })).toEqual({ exitCode: 0, output: "" });
      rmSync(queue.folder, { recursive: true });
      expect(run(hook, { DRV_PATH: drv, OUT_PATHS: a })).toEqual({ exitCode: 0, output: "" });
      writeFileSync(queue.folder, "");
      expect(run(hook, { DRV_PATH: drv, OUT_PATHS: a })).toEqual({ exitCode: 0, output: "" });
    });
  });
});
