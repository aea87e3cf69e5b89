/**
 * The compiled `dist/nixcache` for tests, run as a person runs it: as a process of its own, with an environment
 * that holds nothing but what a test says. Built once by `bun run test`; here only when it is missing.
 */
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "../../scripts/build.ts";
import { ROOT } from "../../scripts/process.ts";

export type Variables = Readonly<Record<string, string | undefined>>;

export interface RunOptions {
  /** Over the private environment; `undefined` takes a variable away. */
  readonly env?: Variables;
  /** What it reads on standard input. Default: nothing, it is closed. */
  readonly stdin?: string;
  /** Default: the private folder `cwd`. */
  readonly cwd?: string;
  /** What to run in the place of the compiled binary, with the same arguments. */
  readonly program?: readonly string[];
}

/** A run under way. */
export interface CliRun {
  readonly pid: number;
  /** SIGKILL, unless it has ended. */
  kill(): void;
  /** Once it has ended; the code is 137 when it was killed. */
  readonly result: Promise<CliResult>;
}

export interface CliResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The most memory that it held, in bytes. */
  readonly peakRss: number;
}

export interface CliServer {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  readonly pid: number;
  /** What it has printed on standard error; complete only once it has been stopped. */
  log(): string;
  /** The most memory that it has held so far, in bytes. */
  peakRss(): number;
  get(path: string, init?: RequestInit): Promise<Response>;
  /** Ends it with SIGTERM and waits for that. @returns its exit code */
  stop(): Promise<number>;
  /** Its exit code once it has ended, and its log is complete. */
  readonly exited: Promise<number>;
}

export interface Cli {
  /** Temporary; HOME, the XDG folders, TMPDIR and the current folder are in it. Removed in the end. */
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  /** The file of the binary. */
  readonly program: string;
  path(...names: string[]): string;
  run(args: readonly string[], options?: RunOptions): Promise<CliResult>;
  start(args: readonly string[], options?: RunOptions): CliRun;
  /** `serve --port 0` with further arguments, once it accepts connections. @throws when it ends before that. */
  serve(args: readonly string[], options?: RunOptions): Promise<CliServer>;
  /** Ends servers that still run, and removes the folder. */
  close(): Promise<void>;
}

/** Between two looks at a process's memory, in milliseconds. The kernel keeps the peak; only the last look counts. */
const SAMPLE_EVERY_MS = 10;

let binary: Promise<string> | undefined;

function nixcache(): Promise<string> {
  const file = join(ROOT, "dist", "nixcache");
  binary ??= existsSync(file) ? Promise.resolve(file) : build();
  return binary;
}

export async function withCli<T>(body: (cli: Cli) => Promise<T>): Promise<T> {
  const cli = await openCli();
  try {
    return await body(cli);
  } finally {
    await cli.close();
  }
}

export async function openCli(): Promise<Cli> {
  const program = await nixcache();
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-test-cli-")));
  const path = (...names: string[]) => join(folder, ...names);
  const env = {
    PATH: process.env.PATH ?? "",
    HOME: path("home"),
    XDG_CACHE_HOME: path("xdg-cache"),
    XDG_CONFIG_HOME: path("xdg-config"),
    XDG_DATA_HOME: path("xdg-data"),
    XDG_STATE_HOME: path("xdg-state"),
    XDG_RUNTIME_DIR: path("xdg-runtime"),
    TMPDIR: path("tmp"),
    NIXCACHE_INDEX_DIR: path("index"),
  };
  for (const name of ["home", "tmp", "cwd"]) await mkdir(path(name));
  const servers = new Set<CliServer>();

  const spawn = (args: readonly string[], options: RunOptions) => {
    const merged = Object.entries({ ...env, ...options.env }).filter(([, value]) => value !== undefined);
    const child = Bun.spawn([...(options.program ?? [program]), ...args], {
      cwd: options.cwd ?? path("cwd"),
      env: Object.fromEntries(merged),
      stdin: options.stdin === undefined ? "ignore" : Buffer.from(options.stdin),
      stdout: "pipe",
      stderr: "pipe",
    });
    return { child, memory: watchMemory(child) };
  };

  const start = (args: readonly string[], options: RunOptions = {}): CliRun => {
    const { child, memory } = spawn(args, options);
    const ended = Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    return {
      pid: child.pid,
      kill: () => child.kill("SIGKILL"),
      result: ended.then(([stdout, stderr, code]) => ({ code, stdout, stderr, peakRss: memory() })),
    };
  };

  return {
    folder,
    env,
    program,
    path,
    run: (args, options = {}) => start(args, options).result,
    start,
    async serve(args, options = {}) {
      const { child, memory } = spawn(["serve", "--port", "0", ...args], options);
      const server = await started(child, memory);
      servers.add(server);
      return server;
    },
    async close() {
      for (const server of servers) await server.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

type Child = Bun.Subprocess<Buffer | "ignore", "pipe", "pipe">;

async function started(child: Child, memory: () => number): Promise<CliServer> {
  let [output, log] = ["", ""];
  const listening = Promise.withResolvers<string | undefined>();
  const read = async (stream: ReadableStream<Uint8Array>, take: (text: string) => void) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) take(decoder.decode(chunk, { stream: true }));
  };
  const ended = Promise.all([
    read(child.stdout, (text) => {
      output += text;
      const url = /^listening on (http:\/\/\S+)\n/m.exec(output)?.[1];
      if (url !== undefined) listening.resolve(url);
    }),
    read(child.stderr, (text) => {
      log += text;
    }),
    child.exited,
  ]);
  void ended.finally(() => listening.resolve(undefined));
  const exited = ended.then(() => child.exitCode ?? 128 + 9);
  const stop = async () => {
    child.kill("SIGTERM");
    const force = setTimeout(() => child.kill("SIGKILL"), 20_000);
    await ended;
    clearTimeout(force);
    return exited;
  };
  const url = await listening.promise;
  if (url === undefined) throw new Error(`serve ended with status ${await stop()}\n${output}${log}`);
  return {
    url,
    pid: child.pid,
    log: () => log,
    peakRss: memory,
    get: (path, init) => fetch(url + path, init),
    stop,
    exited,
  };
}

/**
 * The high-water mark of a process's memory. Not `resourceUsage().maxRSS`: Linux carries the parent's own peak
 * over into that when the child is made by vfork, so a test that holds 400 MiB would see 400 MiB everywhere.
 */
function watchMemory(child: Child): () => number {
  let peak = 0;
  const look = () => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      peak = Math.max(peak, Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024);
    } catch {
      // It has ended, or this is no Linux.
    }
  };
  const timer = setInterval(look, SAMPLE_EVERY_MS);
  void child.exited.finally(() => clearInterval(timer));
  return () => {
    if (child.exitCode === null) look();
    return peak > 0 ? peak : (child.resourceUsage()?.maxRSS ?? 0);
  };
}
