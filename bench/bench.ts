/** What rows work with: sizes, a folder, programs and their cost, and the end of what they have started. */
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type Cli, openCli } from "../tests/support/cli.ts";
import { Cleanup, lease } from "../tests/support/lease.ts";
import { type TestNix, withNix } from "../tests/support/nix.ts";

export interface Bench {
  /** Temporary, removed in the end. */
  readonly folder: string;
  /** The compiled nixcache, as a person runs it. */
  readonly cli: Cli;
  /** The first, or with `--quick` the second. */
  size(full: number, quick: number): number;
  /** A Nix with an empty store, the same for all rows. */
  nix(): Promise<TestNix>;
  /** What is made once for all rows that ask for it by this name. */
  once<T>(name: string, make: () => Promise<T>): Promise<T>;
  /** Closed when the row is over; the last first. */
  use<T extends { close(): Promise<unknown> }>(resource: T): T;
  /** As `use`, when the bench is over. */
  keep<T extends { close(): Promise<unknown> }>(resource: T): T;
}

export interface OpenBench extends Bench {
  /** Ends what the row has started. */
  endRow(): Promise<void>;
  close(): Promise<void>;
}

export async function openBench({ quick }: { quick: boolean }): Promise<OpenBench> {
  const all = new Cleanup();
  const row = new Cleanup();
  const cli = all.add(await openCli());
  const made = new Map<string, Promise<unknown>>();
  const once = <T>(name: string, make: () => Promise<T>): Promise<T> => {
    const known = made.get(name) ?? make();
    made.set(name, known);
    return known as Promise<T>;
  };
  const folder = cli.path("bench");
  await mkdir(folder);
  return {
    folder,
    cli,
    size: (full, small) => (quick ? small : full),
    nix: () => once("nix", async () => all.add(await lease<TestNix>(withNix)).value),
    once,
    use: (resource) => row.add(resource),
    keep: (resource) => all.add(resource),
    endRow: () => row.run(),
    close: async () => {
      await row.run();
      await all.run();
    },
  };
}

export interface Timed {
  readonly seconds: number;
  /** Of processors, its children's included. */
  readonly cpuSeconds: number;
  readonly stdout: string;
}

/** Runs a program to its end. @throws with what it said when it fails */
export async function time(
  argv: readonly string[],
  options: { env?: Readonly<Record<string, string>>; cwd?: string } = {},
): Promise<Timed> {
  const start = performance.now();
  const child = Bun.spawn([...argv], {
    env: { ...process.env, ...options.env },
    ...(options.cwd !== undefined && { cwd: options.cwd }),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const seconds = (performance.now() - start) / 1000;
  if (child.exitCode !== 0)
    throw new Error(`${argv.join(" ")}: status ${child.exitCode}\n${stdout}${stderr}`);
  const cpu = child.resourceUsage()?.cpuTime.total ?? 0n;
  return { seconds, cpuSeconds: Number(cpu) / 1e6, stdout };
}

/** Seconds of processors that a running process has used so far. */
export function cpuSeconds(pid: number): number {
  // Behind the name, which may hold anything but ends with the last parenthesis.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").at(-1)?.split(" ") ?? [];
  const ticks = Number(fields[11]) + Number(fields[12]);
  return ticks / TICKS_PER_SECOND;
}

/** `getconf CLK_TCK`: 100 on every Linux that Bun runs on. */
const TICKS_PER_SECOND = 100;

/** Bytes of memory that a running process holds now. */
export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

/** A folder of its own below the bench's. */
export async function makeFolder(bench: Bench, name: string): Promise<string> {
  const path = join(bench.folder, `${name}-${++folders}`);
  await mkdir(path, { recursive: true });
  return path;
}

let folders = 0;
