/** The property that all parsers have: a value, or an error that was meant. */
import { expect } from "bun:test";
import fc from "fast-check";
import { type ErrorCode, NixcacheError } from "../../src/errors.ts";
import { propertyParameters } from "../support/seed.ts";

/** What a message may have at most, in UTF-16 units: it is for one or two lines of a terminal. */
export const MAX_MESSAGE_LENGTH = 1200;

/** A single input takes a few milliseconds; more than this is a hang. */
const HANG_MS = 5_000;

/** With these a text drives a terminal, or is no longer one line. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

const factor = Number(process.env.NIXCACHE_FUZZ_RUNS || 1);

/** Runs of a property: NIXCACHE_FUZZ_RUNS times the usual number. */
export function runs(usual: number): number {
  return Math.max(1, Math.ceil(usual * (factor > 0 ? factor : 1)));
}

export function parameters(usual: number): { seed: number; numRuns: number } {
  return { ...propertyParameters(), numRuns: runs(usual) };
}

/** Fails unless `error` is a NixcacheError of one of these codes that may be printed as it is. */
export function expectMeant(error: unknown, codes: readonly ErrorCode[]): void {
  if (!(error instanceof NixcacheError)) throw error;
  expect(codes).toContain(error.code);
  for (const text of [error.message, error.hint ?? ""]) {
    if (text.length > MAX_MESSAGE_LENGTH)
      throw new Error(`a message of ${text.length}: ${text.slice(0, 300)}…`);
    const bad = UNPRINTABLE.exec(text);
    if (bad) throw new Error(`a message with ${JSON.stringify(bad[0])}: ${JSON.stringify(text)}`);
  }
}

/** The value, or undefined when the parser refused as it should. */
export function attempt<T>(codes: readonly ErrorCode[], parse: () => T): { readonly value: T } | undefined {
  const start = performance.now();
  try {
    return { value: parse() };
  } catch (error) {
    expectMeant(error, codes);
    return undefined;
  } finally {
    expect(performance.now() - start).toBeLessThan(HANG_MS);
  }
}

export async function attemptAsync<T>(
  codes: readonly ErrorCode[],
  parse: () => Promise<T>,
): Promise<{ readonly value: T } | undefined> {
  const start = performance.now();
  try {
    return { value: await parse() };
  } catch (error) {
    expectMeant(error, codes);
    return undefined;
  } finally {
    expect(performance.now() - start).toBeLessThan(HANG_MS);
  }
}

/**
 * Fails unless every input gives a value for which `check` holds, or one of the errors.
 * @param codes empty for a parser that never throws
 */
export function fuzz<I, T>(
  inputs: fc.Arbitrary<I>,
  usualRuns: number,
  codes: readonly ErrorCode[],
  parse: (input: I) => T,
  check: (value: T, input: I) => void = () => {},
): void {
  fc.assert(
    fc.property(inputs, (input) => {
      const result = attempt(codes, () => parse(input));
      if (result !== undefined) check(result.value, input);
    }),
    parameters(usualRuns),
  );
  expectUnpolluted();
}

/** Fails when something that was read has changed what all objects have. */
export function expectUnpolluted(): void {
  expect(Reflect.ownKeys(Object.prototype).filter((key) => key === "polluted")).toEqual([]);
  expect(({} as Record<string, unknown>).polluted).toBeUndefined();
}
