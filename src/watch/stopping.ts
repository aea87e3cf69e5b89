/**
 * The time that is left after SIGINT or SIGTERM. GitHub Actions sends SIGINT to a job that it ends, 7.5 s later
 * SIGTERM, and 2.5 s later SIGKILL; our second signal ends us at once.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
 */
import type { Host } from "../host.ts";

/** From the signal to the last byte of a NAR that is sent, in milliseconds. */
const UPLOAD_FOR_MS = 3_000;

/** From the signal to the end of everything. */
const COMMIT_FOR_MS = 7_000;

export interface Stopping extends Disposable {
  /** Fires on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** Fires a while later: no more is uploaded then, but what is uploaded can still be committed. */
  readonly until: AbortSignal;
  /** Fires when there is no more time, also for that. */
  readonly cut: AbortSignal;
}

export function stopping(signal: AbortSignal, host: Pick<Host, "sleep">): Stopping {
  const over = new AbortController();
  const later = (ms: number): AbortSignal => {
    const timer = new AbortController();
    const start = () =>
      host.sleep(ms, over.signal).then(
        () => timer.abort(signal.reason),
        () => {},
      );
    if (signal.aborted) void start();
    else signal.addEventListener("abort", start, { once: true, signal: over.signal });
    return timer.signal;
  };
  return {
    signal,
    until: later(UPLOAD_FOR_MS),
    cut: later(COMMIT_FOR_MS),
    [Symbol.dispose]: () => over.abort(),
  };
}
