/** The ways of real registries for the double, with the answers that were recorded from them. */
import { readFileSync } from "node:fs";
import { type RecordedAnswer, type RecordedRegistry, recordedFile } from "./registry-answers.ts";
import type { DoubleOptions } from "./registry-double.ts";

/** An answer to a question, as the registry gave it. */
export function recordedAnswer(registry: string, question: string, at = 0): Response {
  const { answers } = JSON.parse(readFileSync(recordedFile(registry), "utf8")) as RecordedRegistry;
  const answer = answers[question]?.[at];
  if (answer === undefined) throw new Error(`${registry} was not asked: ${question}`);
  return responseOf(answer);
}

function responseOf({ status, headers, body }: RecordedAnswer): Response {
  const { "content-length": _, ...others } = headers;
  return new Response(body ?? null, { status, headers: others });
}

const atMissingBlob = (registry: string) => () =>
  recordedAnswer(registry, "a manifest that names a missing layer");

/** The recorded digest is another one, so it says that some blob is missing. */
export const DISTRIBUTION: DoubleOptions = { atMissingBlob: atMissingBlob("distribution"), deletes: true };
export const OLAREG: DoubleOptions = { atMissingBlob: atMissingBlob("olareg"), deletes: true };

/** Does not say that a blob is missing. */
export const ZOT: DoubleOptions = { atMissingBlob: atMissingBlob("zot"), deletes: true };

/** Fails at a missing blob, keeps tags in lower case, and knows no ranges. */
export const GITEA: DoubleOptions = {
  atMissingBlob: atMissingBlob("gitea"),
  lowersTags: true,
  ignoresRange: true,
  deletes: true,
};

export const REAL_WAYS: readonly (readonly [string, DoubleOptions])[] = [
  ["distribution", DISTRIBUTION],
  ["olareg", OLAREG],
  ["zot", ZOT],
  ["Gitea", GITEA],
];
