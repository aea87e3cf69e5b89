/** A publish's progress: one line that is drawn over on a terminal, nothing elsewhere. */
import { createLogUpdate } from "log-update";
import type { PublishProgress } from "../publish/publish.ts";
import { formatBytes, formatDuration } from "./format.ts";

const BAR_WIDTH = 24;

/** Between two drawings, in milliseconds. */
const DRAW_EVERY_MS = 100;

/** Between two plain lines, in milliseconds. */
const PRINT_EVERY_MS = 30_000;

export interface ProgressLine extends PublishProgress {
  /** Removes the line until the next drawing: somebody else is about to write. */
  pause(): void;
  /** Removes the line and gives the cursor back. */
  done(): void;
}

export function silentProgress(): ProgressLine {
  return { planned() {}, compressed() {}, stored() {}, pause() {}, done() {} };
}

/** A plain line now and then, for logs. Without a clock of its own: it speaks only when something happens. */
export function plainProgress(print: (line: string) => void, now: () => number): ProgressLine {
  return drawnBy(
    ({ total, compressed, sent, elapsedMs }) => {
      const share = `${formatBytes(compressed)} of ${formatBytes(total)}`;
      print(`compressed ${share}, uploaded ${formatBytes(sent)}, ${formatDuration(elapsedMs)}`);
    },
    PRINT_EVERY_MS,
    now,
    { firstAfterMs: PRINT_EVERY_MS },
  );
}

/** @param now milliseconds */
export function terminalProgress(stream: NodeJS.WriteStream, now: () => number): ProgressLine {
  const draw = createLogUpdate(stream);
  const line = drawnBy((state) => draw(progressText(state)), DRAW_EVERY_MS, now, { firstAfterMs: 0 });
  return {
    ...line,
    pause: () => draw.clear(),
    done() {
      draw.clear();
      draw.done();
    },
  };
}

interface ProgressState {
  /** Bytes of NARs to compress, of those that are compressed, and of blobs sent. */
  readonly total: number;
  readonly compressed: number;
  readonly sent: number;
  readonly elapsedMs: number;
}

function drawnBy(
  draw: (state: ProgressState) => void,
  everyMs: number,
  now: () => number,
  { firstAfterMs }: { firstAfterMs: number },
): ProgressLine {
  const started = now();
  let next = started + firstAfterMs;
  let total = 0;
  let compressed = 0;
  let sent = 0;
  const update = () => {
    const time = now();
    if (total === 0 || time < next) return;
    next = time + everyMs;
    draw({ total, compressed, sent, elapsedMs: time - started });
  };
  return {
    ...silentProgress(),
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
  };
}

export function progressText(state: ProgressState): string {
  const share = Math.min(1, state.compressed / state.total);
  const filled = Math.round(share * BAR_WIDTH);
  const bar = "█".repeat(filled) + "░".repeat(BAR_WIDTH - filled);
  const percent = `${Math.floor(share * 100)}%`.padStart(4);
  const amounts = `${formatBytes(state.compressed)} of ${formatBytes(state.total)}, ${formatBytes(state.sent)} uploaded`;
  return `${bar} ${percent}  ${amounts}, ${formatDuration(state.elapsedMs)}`;
}
