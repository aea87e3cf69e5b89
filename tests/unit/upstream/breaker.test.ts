import { describe, expect, test } from "bun:test";
import { Breaker } from "../../../src/upstream/breaker.ts";

/** A clock that stands still until it is moved, and chance that gives the longest waits. */
function open(random = 1) {
  const clock = { ms: 1_000_000 };
  const breaker = new Breaker({ now: () => clock.ms, random: () => random });
  const fail = (whole: boolean, options: { askedAt?: number; waitMs?: number } = {}) =>
    breaker.failed({ askedAt: clock.ms, whole, ...options });
  const wait = () => (breaker.retryAt ?? Number.NaN) - clock.ms;
  return { breaker, clock, fail, wait };
}

describe("a circuit breaker", () => {
  test("opens at once when the whole is broken, and after three failures in a row else", () => {
    const whole = open();
    expect([whole.fail(true), whole.breaker.isOpen]).toEqual([true, true]);
    const one = open();
    expect([one.fail(false), one.fail(false), one.breaker.isOpen]).toEqual([false, false, false]);
    one.breaker.succeeded();
    expect([one.fail(false), one.fail(false), one.fail(false)]).toEqual([false, false, true]);
  });

  test("waits twice as long each time, up to five minutes; a probe does not begin anew, a success does", () => {
    const { breaker, clock, fail, wait } = open();
    const waits: number[] = [];
    for (let i = 0; i < 12; i++) {
      fail(true);
      waits.push(wait() / 1000);
      clock.ms += wait();
      if (i % 2 === 0) breaker.close();
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    breaker.succeeded();
    expect(breaker.isOpen).toBe(false);
    fail(true);
    expect(wait()).toBe(1000);
  });

  test("chance takes at most half of a wait", () => {
    const { fail, wait } = open(0);
    fail(true);
    expect(wait()).toBe(500);
  });

  test("waits as long as it is asked to, but not for ever", () => {
    for (const [waitMs, expected] of [
      [10, 1000],
      [20_000, 20_000],
      [86_400_000, 300_000],
    ] as const) {
      const { fail, wait } = open();
      fail(true, { waitMs });
      expect(wait()).toBe(expected);
    }
  });

  test("what has answered since the question was asked is not broken as a whole", () => {
    const { breaker, clock, fail } = open();
    const askedAt = clock.ms;
    clock.ms += 5000;
    breaker.succeeded();
    expect(fail(true, { askedAt })).toBe(false);
    expect(fail(true)).toBe(true);
  });

  test("what was under way when it opened does not make the wait longer", () => {
    const { clock, fail, wait } = open();
    const askedAt = clock.ms - 1;
    fail(true);
    for (let i = 0; i < 20; i++) expect(fail(true, { askedAt })).toBe(false);
    expect(wait()).toBe(1000);
  });
});
