/** Caches as files on disk, to look at and to damage: an OCI image layout's, and a docker-registry's own. */
import { lstat, readdir } from "node:fs/promises";
import { join, relative } from "node:path";

/** Every file below a folder, with what changes when it is written again: size, time, and inode. */
export async function snapshot(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size, mtimeMs, ino } = await lstat(path);
    files.set(relative(folder, path), `${size} ${mtimeMs} ${ino}`);
  }
  return new Map([...files].sort());
}

/** The file of a blob in a layout. */
export function layoutBlob(layout: string, digest: string): string {
  return join(layout, "blobs", "sha256", digest.replace("sha256:", ""));
}

/** The file of a blob in a docker-registry's data folder. */
export function registryBlob(folder: string, digest: string): string {
  const hex = digest.replace("sha256:", "");
  return join(folder, "docker/registry/v2/blobs/sha256", hex.slice(0, 2), hex, "data");
}

/** Sizes of all blobs that a docker-registry has, whether anything names them or not, by digest. */
export async function registryBlobs(folder: string): Promise<Map<string, number>> {
  const blobs = new Map<string, number>();
  for (const [file, stat] of await snapshot(join(folder, "docker/registry/v2/blobs/sha256"))) {
    const hex = /^[0-9a-f]{2}\/([0-9a-f]{64})\/data$/.exec(file)?.[1];
    if (hex !== undefined) blobs.set(`sha256:${hex}`, Number.parseInt(stat, 10));
  }
  return blobs;
}
