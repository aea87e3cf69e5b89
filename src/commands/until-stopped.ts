/** The life of a server: ready, running, and its end by a signal. */
import { EXIT_CODES } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Notify } from "../system/notify.ts";
import { formatCount, formatDuration } from "../terminal/format.ts";
import type { Log } from "../terminal/log.ts";
import { drain, type Server } from "./listen.ts";

/** Longer than this is not waited for what makes the server ready before systemd is told that it is. */
const READY_WITHIN_MS = 5_000;

export interface LifeOptions {
  readonly server: Server;
  /** What goes on for as long as the server does; it may fail. */
  readonly running: Promise<unknown>;
  readonly ready: Promise<unknown>;
  /** What systemd shows beside the service's state. */
  readonly description: string;
  /** Fires when the server shall stop. */
  readonly signal: AbortSignal;
  /** Milliseconds for which requests may go on from then on. */
  readonly graceMs: number;
  readonly notify: Notify;
  readonly host: Host;
  readonly log: Log;
}

/** @returns the exit code: `interrupted` when requests were cut. @throws what `running` does */
export async function untilStopped(options: LifeOptions): Promise<number> {
  const { server, running, ready, description, signal, graceMs, host, log } = options;
  const tell = async (state: string) => {
    const failure = await options.notify(state);
    if (failure !== undefined) log.warn(failure);
  };
  void Promise.race([ready, host.sleep(READY_WITHIN_MS, signal)]).then(
    () => tell(`READY=1\nSTATUS=${description}`),
    () => {},
  );
  await Promise.race([running, aborted(signal)]);
  void tell("STOPPING=1");
  const grace = formatDuration(graceMs);
  if (server.pendingRequests > 0) {
    const requests = formatCount(server.pendingRequests, "request");
    log.info(`waiting for ${requests} for up to ${grace}; a second signal ends them at once`);
  }
  const cut = await drain(server, graceMs, host);
  if (cut === 0) return 0;
  log.warn(`${formatCount(cut, "request")} cut after ${grace}`);
  return EXIT_CODES.interrupted;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
