/**
 * How much memory there is for programs of ours, and how much one holds.
 *
 * A container's limit is its cgroup's, or that of one around it; what it counts as used has the page cache in it, which
 * the kernel gives back. https://docs.kernel.org/admin-guide/cgroup-v2.html#memory
 */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { dirname, join } from "node:path";
import { childEnvironment } from "../child-environment.ts";

/** The text of a file; undefined where it cannot be read. */
export type ReadText = (file: string) => string | undefined;

const readText: ReadText = (file) => {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
};

/** Bytes that could be had now. Where the system does not say, half of what the machine has. */
export function availableMemory(read: ReadText = readText, total: number = totalmem()): number {
  const [, kib] = /^MemAvailable: *(\d+) kB$/m.exec(read("/proc/meminfo") ?? "") ?? [];
  const machine = kib === undefined ? total / 2 : Number(kib) * 1024;
  return Math.max(0, Math.min(machine, ...cgroups(read).flatMap((group) => leftIn(group, read) ?? [])));
}

interface Cgroup {
  readonly folder: string;
  readonly limit: string;
  readonly used: string;
  /** Its line in `memory.stat`. */
  readonly cache: RegExp;
}

/** Those of this process: the innermost first, and where a container hides the way to it, what it shows as the root. */
function cgroups(read: ReadText): Cgroup[] {
  const lines = (read("/proc/self/cgroup") ?? "").split("\n");
  return lines.flatMap((line) => {
    const [, controllers = "", path = "/"] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (line.startsWith("0::")) {
      const files = { limit: "memory.max", used: "memory.current", cache: /^inactive_file (\d+)$/m };
      return foldersUp("/sys/fs/cgroup", path).map((folder) => ({ folder, ...files }));
    }
    if (!controllers.split(",").includes("memory")) return [];
    const files = {
      limit: "memory.limit_in_bytes",
      used: "memory.usage_in_bytes",
      cache: /^total_inactive_file (\d+)$/m,
    };
    return foldersUp("/sys/fs/cgroup/memory", path).map((folder) => ({ folder, ...files }));
  });
}

function foldersUp(base: string, path: string): string[] {
  const folders: string[] = [];
  for (let at = path; ; at = dirname(at)) {
    folders.push(join(base, at));
    if (at === "/" || at === ".") return folders;
  }
}

function leftIn({ folder, limit, used, cache }: Cgroup, read: ReadText): number | undefined {
  const most = Number(read(join(folder, limit)) ?? Number.NaN);
  const now = Number(read(join(folder, used)) ?? Number.NaN);
  if (Number.isNaN(most) || Number.isNaN(now)) return undefined;
  const cached = Number(cache.exec(read(join(folder, "memory.stat")) ?? "")?.[1] ?? 0);
  return most - Math.max(0, now - cached);
}

/** Bytes of memory that a process holds; undefined where nobody knows, or there is none. */
export function memoryOf(pid: number): number | undefined {
  if (process.platform !== "linux") return askPs(pid);
  const [, kib] = /^VmRSS:\s*(\d+) kB$/m.exec(readText(`/proc/${pid}/status`) ?? "") ?? [];
  return kib === undefined ? undefined : Number(kib) * 1024;
}

/** Milliseconds for which an answer of `ps` counts: it takes some itself. */
const ASK_EVERY_MS = 500;

const asked = new Map<number, { readonly at: number; readonly bytes: number | undefined }>();

function askPs(pid: number): number | undefined {
  const now = performance.now();
  const known = asked.get(pid);
  if (known !== undefined && now - known.at < ASK_EVERY_MS) return known.bytes;
  const { stdout } = Bun.spawnSync(["/bin/ps", "-o", "rss=", "-p", `${pid}`], {
    env: childEnvironment({}),
    stderr: "ignore",
  });
  const kib = Number.parseInt(stdout.toString(), 10);
  const bytes = Number.isNaN(kib) ? undefined : kib * 1024;
  // Processes come and go; what is old is of no use.
  for (const [other, { at }] of asked) if (now - at > ASK_EVERY_MS) asked.delete(other);
  asked.set(pid, { at: now, bytes });
  return bytes;
}
