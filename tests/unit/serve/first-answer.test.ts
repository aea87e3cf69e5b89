import { describe, expect, test } from "bun:test";
import { firstAnswer, HEAD_START_MS } from "../../../src/serve/first-answer.ts";

/** Questions that are answered when a test says, and a head start that is over when it says. */
function open(count: number) {
  const questions = Array.from({ length: count }, () => Promise.withResolvers<string | undefined>());
  const sleeps: { ms: number; over: () => void; signal: AbortSignal | undefined }[] = [];
  const answer = firstAnswer(
    questions.map(({ promise }) => promise),
    {
      sleep: (ms, signal) => new Promise((over) => sleeps.push({ ms, over, signal })),
    },
    (value) => value !== "bad" && value !== "worse",
  );
  const state = { value: undefined as string | undefined, decided: false };
  void answer.then((value) => Object.assign(state, { value, decided: true }));
  const settle = async (rank: number, value: string | undefined) => {
    questions[rank]?.resolve(value);
    await Bun.sleep(0);
  };
  return { settle, sleeps, state };
}

describe("the first good answer", () => {
  test("of the one that comes first in the order needs no other", async () => {
    const { settle, state, sleeps } = open(3);
    await settle(0, "a");
    expect([state, sleeps.length]).toEqual([{ value: "a", decided: true }, 0]);
  });

  test("of a later one counts at once when all before it have none", async () => {
    const { settle, state } = open(3);
    await settle(1, undefined);
    await settle(0, undefined);
    expect(state.decided).toBe(false);
    await settle(2, "c");
    expect(state.value).toBe("c");
  });

  test("of a later one waits for the head start of those before it, and no longer", async () => {
    const { settle, state, sleeps } = open(3);
    await settle(2, "c");
    await settle(1, undefined);
    expect([state.decided, sleeps.map(({ ms }) => ms)]).toEqual([false, [HEAD_START_MS]]);
    sleeps[0]?.over();
    await Bun.sleep(0);
    expect(state).toEqual({ value: "c", decided: true });
  });

  test("is that of a better one that comes within the head start, which ends then", async () => {
    const { settle, state, sleeps } = open(3);
    await settle(2, "c");
    await settle(1, "b");
    expect(state.decided).toBe(false);
    await settle(0, "a");
    expect([state.value, sleeps.length, sleeps[0]?.signal?.aborted]).toEqual(["a", 1, true]);
  });

  test("after the head start is the best of those that came", async () => {
    const { settle, state, sleeps } = open(3);
    await settle(2, "c");
    await settle(1, "b");
    sleeps[0]?.over();
    await Bun.sleep(0);
    expect(state.value).toBe("b");
  });

  test("S12: is not hidden by one that is not good, however long it takes", async () => {
    const { settle, state, sleeps } = open(3);
    await settle(0, "bad");
    await settle(1, undefined);
    expect([state.decided, sleeps.length]).toEqual([false, 0]);
    await settle(2, "c");
    expect(state).toEqual({ value: "c", decided: true });
  });

  test("S12: where there is none, the first that is not counts when all are in", async () => {
    const { settle, state } = open(3);
    await settle(2, "worse");
    await settle(1, "bad");
    expect(state.decided).toBe(false);
    await settle(0, undefined);
    expect(state).toEqual({ value: "bad", decided: true });
  });

  test("is none when all have none, and when nobody is asked", async () => {
    const { settle, state } = open(2);
    await settle(1, undefined);
    expect(state.decided).toBe(false);
    await settle(0, undefined);
    expect(state).toEqual({ value: undefined, decided: true });
    expect(await firstAnswer([], { sleep: async () => {} }, () => true)).toBeUndefined();
  });
});
