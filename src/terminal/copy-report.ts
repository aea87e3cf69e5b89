/** A copy under way, and what it has done. */
import { createLogUpdate } from "log-update";
import type { CopyProgress, CopyReport } from "../copy/copy.ts";
import { formatBytes, formatCount, formatDuration } from "./format.ts";

/** Between two drawings, in milliseconds. */
const DRAW_EVERY_MS = 100;

/** Between two plain lines, in milliseconds. */
const PRINT_EVERY_MS = 30_000;

export interface CopyLine extends CopyProgress {
  /** Removes the line until the next drawing: somebody else is about to write. */
  pause(): void;
  /** Removes the line and gives the cursor back. */
  done(): void;
}

/** A plain line now and then, for logs. @param now milliseconds */
export function plainCopyLine(print: (line: string) => void, now: () => number): CopyLine {
  return { ...drawnBy(print, PRINT_EVERY_MS, PRINT_EVERY_MS, now), pause() {}, done() {} };
}

/** @param now milliseconds */
export function terminalCopyLine(stream: NodeJS.WriteStream, now: () => number): CopyLine {
  const draw = createLogUpdate(stream);
  return {
    ...drawnBy(draw, 0, DRAW_EVERY_MS, now),
    pause: () => draw.clear(),
    done() {
      draw.clear();
      draw.done();
    },
  };
}

function drawnBy(
  draw: (line: string) => void,
  firstAfterMs: number,
  everyMs: number,
  now: () => number,
): CopyProgress {
  const started = now();
  let next = started + firstAfterMs;
  let total = 0;
  return {
    planned(generations) {
      total = generations;
    },
    moved({ generations, blobs }) {
      const time = now();
      if (time < next) return;
      next = time + everyMs;
      const { sent, mounted, present, bytesSent } = blobs;
      const looked = `${generations} of ${formatCount(total, "generation")}`;
      const amount = `${formatCount(sent + mounted + present, "blob")}, ${formatBytes(bytesSent)} sent`;
      draw(`${looked}, ${amount}, ${formatDuration(time - started)}`);
    },
  };
}

/** What became of the generations, one line for each kind. */
export function copyLines({ copied, present, over, gone, unsigned }: CopyReport): string[] {
  const lines: string[] = [];
  if (present > 0) lines.push(`${formatCount(present, "generation")} had been copied before`);
  if (over.length > 0)
    lines.push(`${formatCount(over.length, "generation")} ended at the destination before, and stays so`);
  if (gone.length > 0) lines.push(`${formatCount(gone.length, "generation")} ended at the source meanwhile`);
  if (unsigned.length > 0)
    lines.push(
      `${formatCount(unsigned.length, "generation")} left out, as none of the given keys has signed them`,
    );
  if (copied.length === 0) lines.push("there was nothing new to copy");
  return lines;
}

/** @param to the name of the destination */
export function copySummary({ copied, blobs }: CopyReport, to: string, elapsedMs: number): string {
  const mounted =
    blobs.mounted > 0
      ? `, ${formatCount(blobs.mounted, "blob")} of ${formatBytes(blobs.bytesMounted)} mounted`
      : "";
  const sent = `${formatCount(blobs.sent, "blob")} of ${formatBytes(blobs.bytesSent)} sent`;
  const amount = `${sent}${mounted}, ${blobs.present} there already`;
  return `copied ${formatCount(copied.length, "generation")} to ${to}: ${amount}, ${formatDuration(elapsedMs)}`;
}
