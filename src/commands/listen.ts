/** Ports: where the handler meets the network, and how it leaves it. */
import type { ListenAddress } from "../config.ts";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { Host } from "../host.ts";
import { listensAt } from "../network/web.ts";

export type Server = Bun.Server<undefined>;

/** @throws `listen` when the address is taken or not ours. */
export function listen(
  { hostname, port }: ListenAddress,
  fetch: (request: Request) => Response | Promise<Response>,
  maxRequestBodySize: number,
): Server {
  try {
    const server = Bun.serve({
      hostname,
      port,
      // Bun's own idle time-out cuts clients that pause while they write to disk.
      idleTimeout: 0,
      // Else a second server on the port would be no error, and the kernel would deal requests out to both.
      reusePort: false,
      maxRequestBodySize,
      development: false,
      fetch,
    });
    if (server.port !== undefined) listensAt(server.port);
    return server;
  } catch (cause) {
    const taken = systemCode(cause) === "EADDRINUSE";
    throw new NixcacheError(
      "listen",
      `cannot listen on ${hostname}:${port}: ${taken ? "the port is taken" : messageOf(cause)}`,
      {
        hint: taken
          ? "Stop the other server, or choose another port with --port (0 takes any free one)."
          : "Choose an address of this machine with --listen.",
        cause,
      },
    );
  }
}

export function serverUrl({ hostname }: ListenAddress, server: Server): string {
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${server.port}`;
}

/** Between two looks at whether all requests are answered, in milliseconds. */
const LOOK_EVERY_MS = 50;

/**
 * Takes no more connections, ends those that are idle, and waits until all requests are answered, for as long as
 * `graceMs`; then cuts what is left. @returns how many requests were cut
 */
export async function drain(server: Server, graceMs: number, host: Host): Promise<number> {
  const waiting = new AbortController();
  const over = host.sleep(graceMs, waiting.signal).catch(() => {});
  await Promise.race([server.stop(), allAnswered(server, host, waiting.signal), over]);
  waiting.abort();
  const cut = server.pendingRequests;
  await server.stop(true);
  return cut;
}

/** Bun's `stop` waits besides for clients that never send the rest of what they have begun. */
async function allAnswered(server: Server, host: Host, signal: AbortSignal): Promise<void> {
  while (server.pendingRequests > 0 && !signal.aborted) {
    await host.sleep(LOOK_EVERY_MS, signal).catch(() => {});
  }
}
