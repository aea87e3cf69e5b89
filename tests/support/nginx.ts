/**
 * The real nginx for tests, as the storage host behind a registry: it gives files, ranges of them too, caps each
 * connection, and logs what it was asked. Ended by its process id, never by name.
 * https://nginx.org/en/docs/http/ngx_http_core_module.html#limit_rate
 */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { freePort } from "./registry-process.ts";

export interface NginxOptions {
  /** What it serves. */
  readonly root: string;
  /** Of each connection, such as `20m`, in bytes a second. Default: none. */
  readonly limitRate?: string;
  /** More requests than this at once get 503. Default: none. */
  readonly limitConnections?: number;
  /** Speaks TLS, with the certificate of `tests/fixtures/tls`. */
  readonly tls?: boolean;
  /** `127.0.0.1:PORT` of a registry: `/v2/` is passed on to it. */
  readonly registry?: string;
  /** As fast as it can be: a process for each processor, and no log. Default: one process that logs. */
  readonly fast?: boolean;
}

export interface NginxRequest {
  readonly status: number;
  readonly path: string;
  readonly range: string;
  readonly authorization: string;
  /** Of the answer's body. */
  readonly bytes: number;
  /** Number of the connection that it came over. */
  readonly connection: number;
}

export interface TestNginx {
  readonly url: string;
  /** What it has answered, in the order in which the answers were over. Complete once it has been closed. */
  requests(): Promise<NginxRequest[]>;
  /** Ends it with SIGTERM and waits for that. */
  stop(): Promise<void>;
  close(): Promise<void>;
}

/** Whether the program is there. With CI=true the test runner has seen to it that it is. */
export function hasNginx(): boolean {
  return program() !== undefined;
}

export async function startNginx(options: NginxOptions): Promise<TestNginx> {
  const binary = program();
  if (binary === undefined) throw new Error("nginx is not installed (Debian: apt install nginx-light)");
  const folder = await mkdtemp(join(tmpdir(), "nixcache-test-nginx-"));
  for (let tries = 1; ; tries++) {
    const port = await freePort();
    const started = await launch(binary, folder, port, options);
    if (typeof started === "object") return started;
    if (tries < 5) continue;
    await rm(folder, { recursive: true, force: true });
    throw new Error(`nginx does not start: ${started}`);
  }
}

/** @returns what it has said when it ended at once, such as when the port was taken meanwhile. */
async function launch(
  binary: string,
  folder: string,
  port: number,
  options: NginxOptions,
): Promise<TestNginx | string> {
  await Bun.write(join(folder, "nginx.conf"), configuration(folder, port, options));
  const child = Bun.spawn([binary, "-p", folder, "-c", join(folder, "nginx.conf"), "-e", "stderr"], {
    ...{ stdin: "ignore", stdout: "ignore", stderr: "pipe" },
  });
  let log = "";
  const listening = Promise.withResolvers<boolean>();
  void (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of child.stderr) {
      log += decoder.decode(chunk, { stream: true });
      // Said once the sockets are open.
      if (log.includes("event method")) listening.resolve(true);
    }
    listening.resolve(false);
  })();
  if (!(await listening.promise)) return log;
  const stop = async () => {
    child.kill("SIGTERM");
    await child.exited;
  };
  return {
    url: `${options.tls ? "https" : "http"}://127.0.0.1:${port}`,
    stop,
    async requests() {
      const text = await readFile(join(folder, "access.jsonl"), "utf8");
      return text.trimEnd().split("\n").filter(Boolean).map(parseRequest);
    },
    async close() {
      await stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function parseRequest(line: string): NginxRequest {
  const { status, bytes, connection, ...rest } = JSON.parse(line);
  return { ...rest, status: Number(status), bytes: Number(bytes), connection: Number(connection) };
}

function configuration(folder: string, port: number, options: NginxOptions): string {
  const { root, limitRate, limitConnections, tls, registry, fast = false } = options;
  const certificates = join(ROOT, "tests", "fixtures", "tls");
  const variables = {
    status: "$status",
    path: "$uri",
    range: "$http_range",
    authorization: "$http_authorization",
    bytes: "$body_bytes_sent",
    connection: "$connection",
  };
  return `
daemon off;
${fast ? "worker_processes auto; user root;" : "master_process off;"}
pid ${folder}/nginx.pid;
error_log stderr notice;
events {}
http {
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`).join("\n  ")}
  log_format requests escape=json '${JSON.stringify(variables)}';
  access_log ${fast ? "off" : `${folder}/access.jsonl requests`};
  default_type application/octet-stream;
  keepalive_requests 100000000;
  sendfile on;
  # The rate is kept by waiting after each piece.
  sendfile_max_chunk 256k;
  ${limitRate === undefined ? "" : `limit_rate ${limitRate};`}
  limit_conn_zone $server_name zone=all:1m;
  ${limitConnections === undefined ? "" : `limit_conn all ${limitConnections};`}
  server {
    listen 127.0.0.1:${port}${tls ? " ssl" : ""};
    ${tls ? `ssl_certificate ${certificates}/server.pem; ssl_certificate_key ${certificates}/server-key.pem;` : ""}
    server_name storage;
    root ${root};
    ${registry === undefined ? "" : passOn(registry)}
  }
}
`;
}

/** As distribution's manual has it: its answers name addresses by what the client has used. */
function passOn(registry: string): string {
  return `location /v2/ {
      proxy_pass http://${registry};
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      client_max_body_size 0;
    }`;
}

function program(): string | undefined {
  const path = `${process.env.PATH ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return Bun.which("nginx", { PATH: path }) ?? undefined;
}
