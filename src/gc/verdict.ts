/** What becomes of one generation, and why. */

/** The rule that decided. */
export type Rule =
  | "young"
  | "pin"
  | "pin-revision"
  | "pin-days"
  | "unpinned"
  | "newest"
  | "last"
  | "retention"
  | "age"
  | "partial"
  | "drop-branch"
  | "max-size"
  | "unsigned";

export interface Verdict {
  readonly ends: boolean;
  readonly rule: Rule;
  /** Says of the generation why it ends or stays: "older than 30 days, and …". */
  readonly reason: string;
  /** It ends after all others: while it is alive, it is known that they are over. */
  readonly last?: true;
}

export function stays(rule: Rule, reason: string): Verdict {
  return { ends: false, rule, reason };
}

export function ends(rule: Rule, reason: string): Verdict {
  return { ends: true, rule, reason };
}

/** Younger than the longest transfer, so that nobody ends it whatever is asked for. */
export function staysForItsAge(): Verdict {
  return stays("young", "younger than a day: somebody may still rely on it");
}

export function days(ms: number): string {
  const count = ms / 86_400_000;
  return count === 1 ? "a day" : `${count} days`;
}
