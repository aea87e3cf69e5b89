/** The first good answer of several upstreams that were asked at once. */
import type { Host } from "../host.ts";

/**
 * How long a good answer waits for those that come before it, in milliseconds. A cache next door shall win over one
 * that is further away, but none shall be waited for like one that is alone.
 */
export const HEAD_START_MS = 100;

/**
 * The good answer that comes first in the order of the questions; once one is there the others have a head start's
 * time. When all are in and none is good, the first answer at all; undefined when there is none.
 *
 * @param questions none of them rejects; undefined is no answer
 * @param isGood what is not must hide no good answer, so it waits for all the others
 */
export function firstAnswer<T>(
  questions: readonly Promise<T | undefined>[],
  host: Pick<Host, "sleep">,
  isGood: (answer: T) => boolean,
): Promise<T | undefined> {
  const answers: { readonly value: T | undefined }[] = [];
  const decided = new AbortController();
  return new Promise((resolve) => {
    let headStart: "before" | "running" | "over" = "before";
    const decide = (value: T | undefined) => {
      decided.abort();
      resolve(value);
    };
    const look = () => {
      let pending = false;
      for (let rank = 0; rank < questions.length; rank++) {
        const answer = answers[rank];
        if (answer === undefined) pending = true;
        else if (answer.value !== undefined && isGood(answer.value)) {
          if (!pending || headStart === "over") return decide(answer.value);
          if (headStart === "before") {
            headStart = "running";
            host.sleep(HEAD_START_MS, decided.signal).then(
              () => {
                headStart = "over";
                look();
              },
              () => {},
            );
          }
          return;
        }
      }
      if (!pending) decide(answers.find(({ value }) => value !== undefined)?.value);
    };
    questions.forEach((question, rank) => {
      void question.then((value) => {
        answers[rank] = { value };
        look();
      });
    });
    look();
  });
}
