/** A disk of its own that can be full: a small tmpfs. Only root may mount one. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

export interface SmallDisk {
  readonly folder: string;
  /** Leaves so many bytes free, or nearly: a tmpfs counts pages. */
  fill(leave: number): Promise<void>;
  /** Takes back what `fill` took. */
  free(): Promise<void>;
  close(): Promise<void>;
}

export function canMount(): boolean {
  return process.platform === "linux" && process.getuid?.() === 0 && Bun.which("mount") !== null;
}

/** @param folder is made; @param size in bytes */
export async function mountSmallDisk(folder: string, size: number): Promise<SmallDisk> {
  await mkdir(folder);
  await command(["mount", "-t", "tmpfs", "-o", `size=${size},mode=755`, "nixcache-test", folder]);
  const filler = join(folder, "filler");
  return {
    folder,
    async fill(leave) {
      const { stdout } = Bun.spawnSync(["stat", "--file-system", "--format=%a %S", folder]);
      const [blocks = 0, blockSize = 0] = stdout.toString().trim().split(" ").map(Number);
      await writeFile(filler, Buffer.alloc(Math.max(0, blocks * blockSize - leave)));
    },
    free: () => rm(filler, { force: true }),
    async close() {
      await command(["umount", "--lazy", folder]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function command(argv: string[]): Promise<void> {
  const child = Bun.spawn(argv, { stdout: "ignore", stderr: "pipe" });
  const [errors, code] = await Promise.all([child.stderr.text(), child.exited]);
  if (code !== 0) throw new Error(`${argv.join(" ")}: ${errors}`);
}
