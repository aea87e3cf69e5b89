/** Checks of a set-up: each says one thing, and no check can hold up the others for ever. */
import { messageOf, NixcacheError } from "../errors.ts";
import type { Host } from "../host.ts";

export interface Finding {
  readonly check: string;
  /** `note` is worth knowing and breaks nothing; `skipped` could not be looked at for want of something else. */
  readonly state: "ok" | "note" | "wrong" | "skipped";
  /** What was found, without a full stop. */
  readonly text: string;
  /** What mends it, as a sentence. */
  readonly mend?: string;
}

export type Found = Omit<Finding, "check">;

export interface Check {
  readonly name: string;
  readonly run: () => Promise<Found>;
}

export const ok = (text: string): Found => ({ state: "ok", text });
export const note = (text: string, mend?: string): Found => ({ state: "note", text, ...(mend && { mend }) });
export const wrong = (text: string, mend: string): Found => ({ state: "wrong", text, mend });
export const skipped = (text: string): Found => ({ state: "skipped", text });

/** Runs all at once. @returns what they found, in their order, within `limitMs` */
export async function runChecks(
  checks: readonly Check[],
  limitMs: number,
  host: Pick<Host, "sleep">,
): Promise<Finding[]> {
  const done = new AbortController();
  const late = host.sleep(limitMs, done.signal).then(
    () => true,
    () => false,
  );
  const findings = checks.map(async ({ name, run }): Promise<Finding> => {
    const tooLate = late.then(() =>
      wrong(`no answer within ${limitMs / 1000} s`, "See what the others say."),
    );
    return { check: name, ...(await Promise.race([attempt(run), tooLate])) };
  });
  const all = await Promise.all(findings);
  done.abort();
  return all;
}

async function attempt(run: Check["run"]): Promise<Found> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof NixcacheError)) return wrong(messageOf(error), "Run it again with --verbose.");
    return wrong(error.message, error.hint ?? "See what the others say.");
  }
}

/** A question that several checks have, asked once and only if one of them asks. */
export function once<T>(ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | undefined;
  return () => {
    answer ??= ask();
    return answer;
  };
}
