/** How each registry is started, and how it is made to collect garbage at once. */
import { join } from "node:path";
import { distributionSettings } from "./registry.ts";
import type { RegistryProcess } from "./registry-process.ts";

export type RealRegistryName = "docker-registry" | "distribution" | "olareg" | "zot" | "gitea";

export interface RealRegistryOptions {
  /** Whether manifests can be deleted. Default: yes, which olareg and distribution must be told. */
  readonly deletion?: boolean;
  /** Default: no. */
  readonly readOnly?: boolean;
  /** Requests a second. Default: any number. */
  readonly rateLimit?: number;
  /** Collects garbage all the time, however young it is. */
  readonly collecting?: boolean;
}

export interface Launch {
  readonly program: string;
  readonly folder: string;
  readonly port: number;
  readonly options: RealRegistryOptions;
}

export interface Collection {
  readonly program: string;
  readonly folder: string;
  readonly running: RegistryProcess;
  restart(options: RealRegistryOptions): Promise<void>;
}

export interface RealRegistryKind {
  /** The settings that it has. */
  readonly has: readonly (keyof RealRegistryOptions)[];
  /** Who may write. */
  readonly user?: { readonly name: string; readonly password: string };
  readonly env?: Readonly<Record<string, string>>;
  /** What makes it say its version, and how to find that. */
  readonly version: { readonly args: readonly string[]; readonly version: RegExp };
  /** Done once, before it is first started. */
  prepare?(program: string, folder: string): Promise<void>;
  command(launch: Launch): Promise<readonly string[]>;
  /** See RegistryProgram. */
  listens?(port: number): string;
  collect(collection: Collection): Promise<void>;
}

/** https://distribution.github.io/distribution/about/configuration/ */
const distribution: RealRegistryKind = {
  has: ["deletion", "readOnly"],
  version: { args: ["--version"], version: /(?:distribution\S*) v?(\d\S*)/ },
  async command({ program, folder, port, options: { deletion = true, readOnly = false } }) {
    const file = join(folder, "config.json");
    await Bun.write(file, distributionSettings(folder, port, { deletion, readOnly }));
    return [program, "serve", file];
  },
  listens: (port) => `listening on 127.0.0.1:${port}`,
  async collect({ program, folder, running }) {
    await running.stop();
    await exec([program, "garbage-collect", "--delete-untagged", join(folder, "config.json")]);
    await running.start();
  },
};

/** `olareg serve --help` */
const olareg: RealRegistryKind = {
  has: ["deletion", "readOnly", "rateLimit", "collecting"],
  version: { args: ["version"], version: /VCSTag: +v(\S+)/ },
  async command({ program, folder, port, options }) {
    const { deletion = true, readOnly = false, rateLimit, collecting = false } = options;
    return [
      ...[program, "serve", "--addr", "127.0.0.1", "--port", String(port), "--dir", join(folder, "data")],
      ...(deletion ? ["--api-delete"] : []),
      ...(readOnly ? ["--store-ro"] : []),
      ...(rateLimit === undefined ? [] : ["--rate-limit", String(rateLimit)]),
      ...(collecting ? ["--gc-frequency", "1s", "--gc-grace-period", "1ms", "--gc-untagged"] : []),
      ...["--verbosity", collecting ? "debug" : "warn"],
    ];
  },
  async collect({ folder, running, restart }) {
    const names = await repositories(join(folder, "data"));
    if (names.length === 0) return;
    await restart({ collecting: true });
    // It collects in repositories that somebody has asked for since its start.
    for (const name of names) await fetch(`http://127.0.0.1:${running.port}/v2/${name}/tags/list`);
    await running.logged(/finished GC/);
  },
};

/** https://zotregistry.dev/latest/admin-guide/admin-configuration/ */
const zot: RealRegistryKind = {
  has: ["readOnly", "rateLimit", "collecting"],
  version: { args: ["--version"], version: /"(?:commit|version)":"v?([^"]+)"/ },
  async command({ program, folder, port, options: { readOnly = false, rateLimit, collecting = false } }) {
    const file = join(folder, "config.json");
    const anybody = ["read", ...(readOnly ? [] : ["create", "update", "delete"])];
    const settings = {
      distSpecVersion: "1.1.1",
      storage: {
        rootDirectory: join(folder, "data"),
        ...(collecting ? { gc: true, gcDelay: "1s", gcInterval: "1s" } : {}),
      },
      http: {
        address: "127.0.0.1",
        port: String(port),
        ...(readOnly ? { accessControl: { repositories: { "**": { anonymousPolicy: anybody } } } } : {}),
        ...(rateLimit === undefined ? {} : { ratelimit: { rate: rateLimit } }),
      },
      log: { level: "info" },
    };
    await Bun.write(file, JSON.stringify(settings));
    return [program, "serve", file];
  },
  async collect({ running, restart }) {
    await restart({ collecting: true });
    await running.logged(/gc successfully completed/);
    // What was being written at that moment is in the next round.
    await running.logged(/gc successfully completed/);
  },
};

const GITEA_USER = { name: "owner", password: "only-for-tests" };

/** https://docs.gitea.com/administration/config-cheat-sheet */
const gitea: RealRegistryKind = {
  has: [],
  user: GITEA_USER,
  env: { GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT: "true" },
  version: { args: ["--version"], version: /version (\S+)/ },
  async prepare(program, folder) {
    const command = await gitea.command({ program, folder, port: 0, options: {} });
    const [, , ...config] = command;
    await exec([program, ...config, "migrate"], gitea.env);
    const { name, password } = GITEA_USER;
    const user = ["--username", name, "--password", password, "--email", "owner@example.org"];
    const create = ["admin", "user", "create", ...config, ...user];
    await exec([program, ...create, "--admin", "--must-change-password=false"], gitea.env);
  },
  async command({ program, folder, port }) {
    const file = join(folder, "app.ini");
    await Bun.write(file, giteaSettings(folder, port));
    return [program, "web", "--config", file, "--work-path", folder];
  },
  async collect({ running }) {
    const api = `http://127.0.0.1:${running.port}/api/v1/admin/cron`;
    const { name, password } = GITEA_USER;
    const headers = { authorization: `Basic ${btoa(`${name}:${password}`)}` };
    const runs = async (): Promise<number> => {
      const tasks = (await (await fetch(`${api}?limit=100`, { headers })).json()) as GiteaTask[];
      return tasks.find((task) => task.name === "cleanup_packages")?.exec_times ?? 0;
    };
    const before = await runs();
    const asked = await fetch(`${api}/cleanup_packages`, { method: "POST", headers });
    if (!asked.ok) throw new Error(`cleanup_packages: ${asked.status} ${await asked.text()}`);
    while ((await runs()) === before) await Bun.sleep(50);
  },
};

interface GiteaTask {
  readonly name: string;
  readonly exec_times: number;
}

function giteaSettings(folder: string, port: number): string {
  const key = "only-for-tests-only-for-tests-only-for-tests";
  return `RUN_MODE = prod
WORK_PATH = ${folder}
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = ${port}
ROOT_URL = http://127.0.0.1:${port}/
DISABLE_SSH = true
OFFLINE_MODE = true
APP_DATA_PATH = ${folder}/data
[database]
DB_TYPE = sqlite3
PATH = ${folder}/data/gitea.db
[repository]
ROOT = ${folder}/data/repositories
[security]
INSTALL_LOCK = true
SECRET_KEY = ${key}
INTERNAL_TOKEN = ${key}
PASSWORD_HASH_ALGO = pbkdf2$1$32
[oauth2]
ENABLED = false
[packages]
ENABLED = true
[cron.cleanup_packages]
OLDER_THAN = 0s
[indexer]
ISSUE_INDEXER_TYPE = db
[log]
MODE = console
LEVEL = Info
`;
}

export const KINDS: Readonly<Record<RealRegistryName, RealRegistryKind>> = {
  "docker-registry": distribution,
  distribution,
  olareg,
  zot,
  gitea,
};

/** Names of the repositories in a folder of image layouts. */
async function repositories(folder: string): Promise<string[]> {
  const found = await Array.fromAsync(new Bun.Glob("**/oci-layout").scan({ cwd: folder }));
  return found.map((file) => file.replace(/\/oci-layout$/, ""));
}

async function exec(command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<void> {
  const child = Bun.spawn([...command], {
    env: { ...process.env, ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, errors, status] = await Promise.all([
    child.stdout.text(),
    child.stderr.text(),
    child.exited,
  ]);
  if (status !== 0) throw new Error(`${command.join(" ")}: status ${status}\n${output}${errors}`);
}
