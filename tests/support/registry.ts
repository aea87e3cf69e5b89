/**
 * The real registry for tests: Debian's `docker-registry` (distribution 2.8) on a free port of this machine, with
 * its data in a temporary folder. Ended by its process id, never by name.
 * https://distribution.github.io/distribution/about/configuration/
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface RegistryOptions {
  /** Whether manifests can be deleted; distribution's own default is no. Default: yes. */
  readonly deletion?: boolean;
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
  let child: Bun.Subprocess<"ignore", "ignore", "pipe"> | undefined;
  let port = 0;
  let log = "";
  const configFile = join(folder, "config.yml");
  if (options.user !== undefined) {
    const hash = await Bun.password.hash(options.user.password, { algorithm: "bcrypt", cost: 4 });
    await Bun.write(join(folder, "htpasswd"), `${options.user.name}:${hash}\n`);
  }

  const stop = async (): Promise<void> => {
    child?.kill("SIGTERM");
    await child?.exited;
    child = undefined;
  };

  /** @returns whether it listens; false when it ended first, such as when the port was taken meanwhile. */
  const launch = async (): Promise<boolean> => {
    await Bun.write(configFile, configuration(folder, port, options));
    const process = Bun.spawn([binary, "serve", configFile], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    child = process;
    const listening = Promise.withResolvers<boolean>();
    // What an earlier run has logged says nothing of this one.
    const from = log.length;
    const read = async () => {
      const decoder = new TextDecoder();
      for await (const chunk of process.stderr) {
        log += decoder.decode(chunk, { stream: true });
        if (log.slice(from).includes(`listening on 127.0.0.1:${port}`)) listening.resolve(true);
      }
      listening.resolve(false);
    };
    void read();
    return listening.promise;
  };

  const start = async (): Promise<void> => {
    if (child !== undefined) return;
    if (!(await launch())) throw new Error(`docker-registry does not start: ${log}`);
  };

  for (let tries = 1; ; tries++) {
    port = await freePort();
    if (await launch()) break;
    await stop();
    if (tries === 5) throw new Error(`docker-registry does not start: ${log}`);
  }

  return {
    host: `127.0.0.1:${port}`,
    folder: join(folder, "data"),
    log: () => log,
    stop,
    start,
    collectGarbage: async ({ untagged = false } = {}) => {
      await stop();
      log = "";
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
function configuration(folder: string, port: number, { deletion = true, user }: RegistryOptions): string {
  return JSON.stringify({
    version: "0.1",
    log: { level: "info", accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(folder, "data"), maxthreads: 100 },
      delete: { enabled: deletion },
      maintenance: { uploadpurging: { enabled: false } },
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

/** Free now; somebody may take it before it is used, so whoever asks tries again. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

function program(): string | undefined {
  const path = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return Bun.which("docker-registry", { PATH: path }) ?? undefined;
}
