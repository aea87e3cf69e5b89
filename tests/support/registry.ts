/**
 * The real registry for tests: Debian's `docker-registry` (distribution 2.8) on a free port of this machine, with
 * its data in a temporary folder. Ended by its process id, never by name.
 * https://distribution.github.io/distribution/about/configuration/
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startProcess } from "./registry-process.ts";

export interface RegistryOptions {
  /** Whether manifests can be deleted; distribution's own default is no. Default: yes. */
  readonly deletion?: boolean;
  /** Takes no uploads. Default: it does. */
  readonly readOnly?: boolean;
  /** Wants this user's password, by Basic. Default: nobody is asked. */
  readonly user?: { readonly name: string; readonly password: string };
}

export interface TestRegistry {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Where its files are: `docker/registry/v2/…`. */
  readonly folder: string;
  /** What it has logged so far. */
  log(): string;
  /** Ends it with SIGTERM and waits for that. Data stays. */
  stop(): Promise<void>;
  /** Starts it again on the same port, over the same data. */
  start(): Promise<void>;
  /**
   * Stops it, runs `docker-registry garbage-collect` and starts it again, as its manual asks for.
   * @returns what the collector printed.
   */
  collectGarbage(options?: { untagged?: boolean }): Promise<string>;
  /** Ends it and removes its data. */
  close(): Promise<void>;
}

/** Whether the program is there. With CI=true the test runner has seen to it that it is. */
export function hasRegistry(): boolean {
  return program() !== undefined;
}

/** Gives `body` a fresh registry, and ends it afterwards. */
export async function withRegistry<T>(
  body: (registry: TestRegistry) => Promise<T>,
  options: RegistryOptions = {},
): Promise<T> {
  const registry = await startRegistry(options);
  try {
    return await body(registry);
  } finally {
    await registry.close();
  }
}

export async function startRegistry(options: RegistryOptions = {}): Promise<TestRegistry> {
  const binary = program();
  if (binary === undefined)
    throw new Error("docker-registry is not installed (Debian: apt install docker-registry)");
  const folder = await mkdtemp(join(tmpdir(), "nixcache-test-registry-"));
  try {
    return await open(binary, folder, options);
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
}

async function open(binary: string, folder: string, options: RegistryOptions): Promise<TestRegistry> {
  const configFile = join(folder, "config.yml");
  if (options.user !== undefined) {
    const hash = await Bun.password.hash(options.user.password, { algorithm: "bcrypt", cost: 4 });
    await Bun.write(join(folder, "htpasswd"), `${options.user.name}:${hash}\n`);
  }
  const { port, log, stop, start } = await startProcess({
    name: "docker-registry",
    async command(port) {
      await Bun.write(configFile, distributionSettings(folder, port, options));
      return [binary, "serve", configFile];
    },
    listens: (port) => `listening on 127.0.0.1:${port}`,
  });
  return {
    host: `127.0.0.1:${port}`,
    folder: join(folder, "data"),
    log,
    stop,
    start,
    collectGarbage: async ({ untagged = false } = {}) => {
      await stop();
      const command = [binary, "garbage-collect", ...(untagged ? ["--delete-untagged"] : []), configFile];
      const collector = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "pipe" });
      const [output, errors, exitCode] = await Promise.all([
        collector.stdout.text(),
        collector.stderr.text(),
        collector.exited,
      ]);
      if (exitCode !== 0) throw new Error(`garbage-collect failed with status ${exitCode}: ${errors}`);
      await start();
      return output;
    },
    close: async () => {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** JSON is YAML. No health checks and no cache of descriptors: what is on disk counts, also after collecting. */
export function distributionSettings(
  folder: string,
  port: number,
  { deletion = true, readOnly = false, user }: RegistryOptions,
): string {
  return JSON.stringify({
    version: "0.1",
    log: { level: "info", accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(folder, "data"), maxthreads: 100 },
      delete: { enabled: deletion },
      maintenance: { uploadpurging: { enabled: false }, readonly: { enabled: readOnly } },
    },
    http: { addr: `127.0.0.1:${port}`, secret: "only for tests" },
    ...(user === undefined ? {} : { auth: { htpasswd: { realm: "test", path: join(folder, "htpasswd") } } }),
  });
}

/** Hexadecimal digests of all blobs and manifests in a registry's folder, sorted. */
export async function blobsOnDisk({ folder }: TestRegistry): Promise<string[]> {
  const root = join(folder, "docker", "registry", "v2", "blobs", "sha256");
  const names = await Promise.all((await readdir(root)).map((prefix) => readdir(join(root, prefix))));
  return names.flat().sort();
}

function program(): string | undefined {
  const path = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return Bun.which("docker-registry", { PATH: path }) ?? undefined;
}
