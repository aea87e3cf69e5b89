/** A publish's progress: one line that is drawn over on a terminal, nothing elsewhere. */
import { createLogUpdate } from "log-update";
import type { PublishProgress } from "../publish/publish.ts";
import { formatBytes, formatDuration } from "./format.ts";

const BAR_WIDTH = 24;

/** Between two drawings, in milliseconds. */
const DRAW_EVERY_MS = 100;

export interface ProgressLine extends PublishProgress {
  /** Removes the line. */
  done(): void;
}

export function silentProgress(): ProgressLine {
  return { planned() {}, compressed() {}, stored() {}, done() {} };
}

/** @param now milliseconds */
export function terminalProgress(stream: NodeJS.WriteStream, now: () => number): ProgressLine {
  const draw = createLogUpdate(stream);
  const started = now();
  let drawn = 0;
  let total = 0;
  let compressed = 0;
  let sent = 0;
  const update = () => {
    if (total === 0 || now() - drawn < DRAW_EVERY_MS) return;
    drawn = now();
    draw(progressText({ total, compressed, sent, elapsedMs: drawn - started }));
  };
  return {
    planned({ fresh }) {
      total = fresh.reduce((sum, { narSize }) => sum + narSize, 0);
      update();
    },
    compressed(bytes) {
      compressed += bytes;
      update();
    },
    stored(blob, wasSent) {
      if (wasSent) sent += blob.size;
      update();
    },
    done: () => draw.clear(),
  };
}

export function progressText(state: {
  total: number;
  compressed: number;
  sent: number;
  elapsedMs: number;
}): string {
  const share = Math.min(1, state.compressed / state.total);
  const filled = Math.round(share * BAR_WIDTH);
  const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amounts = `${formatBytes(state.compressed)} of ${formatBytes(state.total)}, ${formatBytes(state.sent)} uploaded`;
  return `${bar} ${percent}  ${amounts}, ${formatDuration(state.elapsedMs)}`;
}
