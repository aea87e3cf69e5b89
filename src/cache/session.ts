/**
 * The run of this machine, from one start to the next. What was written to a file in this run can be read back, also
 * by other processes, whether it has reached the disk or not; what an earlier run did not force to disk may be lost.
 */
import { readFileSync } from "node:fs";
import { uptime } from "node:os";

const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/** Differences in the reckoned time of the start that are none, in milliseconds. */
const SAME_START_MS = 10_000;

let known: string | undefined;

/** Names the run. Where the system has no name for it, by the time of the start. */
export function session(): string {
  known ??= bootId() ?? `started ${Math.round((Date.now() - uptime() * 1000) / SAME_START_MS)}`;
  return known;
}

function bootId(): string | undefined {
  try {
    return readFileSync(BOOT_ID, "utf8").trim();
  } catch {
    return undefined;
  }
}
