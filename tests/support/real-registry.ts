/**
 * Registries of other people as programs of this machine, each as its defaults are but for what a test needs. Which
 * program it is says an environment variable (`scripts/registry-programs.ts`); docker-registry is Debian's.
 *
 *     await withRealRegistry("zot", async (registry) => { … registry.host … });
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REGISTRY_PROGRAMS } from "../../scripts/registry-programs.ts";
import { KINDS, type RealRegistryName, type RealRegistryOptions } from "./real-registry-kinds.ts";
import { startProcess } from "./registry-process.ts";

export interface RealRegistry {
  readonly name: RealRegistryName;
  /** As the program says it, such as `2.8.2+ds1`. */
  readonly version: string;
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Where its data is. */
  readonly folder: string;
  /** Who may write; undefined where everybody may. */
  readonly user: { readonly name: string; readonly password: string } | undefined;
  log(): string;
  /** Whether it has such settings at all. */
  has(options: RealRegistryOptions): boolean;
  /** Has it remove what no manifest names, with no grace. Nothing may write meanwhile. */
  collectGarbage(): Promise<void>;
  /** Ends it, and starts it over the same data with other settings. */
  restart(options: RealRegistryOptions): Promise<void>;
  /** Ends it and removes its data. */
  close(): Promise<void>;
}

/** The program's file. Undefined when there is none to run. */
export function realRegistryProgram(name: RealRegistryName): string | undefined {
  if (name !== "docker-registry") return process.env[REGISTRY_PROGRAMS[name].variable] || undefined;
  const path = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return Bun.which("docker-registry", { PATH: path }) ?? undefined;
}

export async function withRealRegistry<T>(
  name: RealRegistryName,
  body: (registry: RealRegistry) => Promise<T>,
  options: RealRegistryOptions = {},
): Promise<T> {
  const registry = await startRealRegistry(name, options);
  try {
    return await body(registry);
  } finally {
    await registry.close();
  }
}

/** @throws when there is no program, or it does not start. */
export async function startRealRegistry(
  name: RealRegistryName,
  first: RealRegistryOptions = {},
): Promise<RealRegistry> {
  const program = realRegistryProgram(name);
  if (program === undefined) throw new Error(`there is no program for ${name}`);
  const kind = KINDS[name];
  const folder = await mkdtemp(join(tmpdir(), `nixcache-test-${name}-`));
  let options = first;
  try {
    await kind.prepare?.(program, folder);
    const running = await startProcess({
      name,
      command: (port) => kind.command({ program, folder, port, options }),
      env: kind.env,
      listens: kind.listens,
    });
    const host = `127.0.0.1:${running.port}`;
    const restart = async (other: RealRegistryOptions): Promise<void> => {
      await running.stop();
      options = other;
      await running.start();
    };
    return {
      name,
      version: await versionOf(program, kind.version),
      host,
      folder: join(folder, "data"),
      user: kind.user,
      log: running.log,
      has: (wanted) =>
        (Object.keys(wanted) as (keyof RealRegistryOptions)[]).every((key) => kind.has.includes(key)),
      restart,
      collectGarbage: async () => {
        const before = options;
        await kind.collect({ program, folder, running, restart });
        if (options !== before) await restart(before);
      },
      close: async () => {
        await running.stop();
        await rm(folder, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function versionOf(
  program: string,
  { args, version }: { args: readonly string[]; version: RegExp },
): Promise<string> {
  const said = version.exec(await outputOf([program, ...args]))?.[1];
  if (said !== undefined) return said;
  // zot knows its version only where its own build has put it in; Go knows that of the module.
  const built = Bun.which("go") === null ? "" : await outputOf(["go", "version", "-m", program]);
  return /^\tmod\t\S+\tv(\S+)/m.exec(built)?.[1] ?? "unknown";
}

/** On both streams. */
async function outputOf(command: readonly string[]): Promise<string> {
  const child = Bun.spawn([...command], { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [output, errors] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return output + errors;
}
