/** Nix's own log while it builds, and on a terminal a line below it of where the build is. */

import { createLogUpdate } from "log-update";
import type { StepLog } from "../actions/step-log.ts";
import type { BuildState } from "../build/build-log.ts";
import { stateText } from "../build/report.ts";
import { redactUrls } from "../redact.ts";

/** Between two drawings, in milliseconds. */
const DRAW_EVERY_MS = 100;

export interface BuildLines {
  line(text: string): void;
  state(state: () => BuildState): void;
  /** Removes what is drawn over; nothing may come after. */
  done(): void;
}

/** Nix quotes the references of flakes, with their passwords. */
export function withoutSecrets(lines: BuildLines): BuildLines {
  return { ...lines, line: (text) => lines.line(redactUrls(text)) };
}

export function plainLines(stream: Pick<NodeJS.WriteStream, "write">): BuildLines {
  return { line: (text) => void stream.write(`${text}\n`), state() {}, done() {} };
}

/** @param now milliseconds */
export function terminalLines(stream: NodeJS.WriteStream, now: () => number): BuildLines {
  const draw = createLogUpdate(stream);
  let last = Number.NEGATIVE_INFINITY;
  return {
    line(text) {
      draw.clear();
      stream.write(`${text}\n`);
    },
    state(state) {
      if (now() - last < DRAW_EVERY_MS) return;
      last = now();
      draw(stateText(state(), stream.columns ?? 80));
    },
    done() {
      draw.clear();
      draw.done();
    },
  };
}

/** Folded away, for the table and the annotations say what matters. */
export function groupedLines(step: StepLog): BuildLines {
  let open = false;
  return {
    line(text) {
      if (!open) step.startGroup("Nix's log");
      open = true;
      step.text(text);
    },
    state() {},
    done() {
      if (open) step.endGroup();
    },
  };
}
