/** Paths and small helpers that the tests of `src/nar` share. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NixcacheError } from "../../../src/errors.ts";

const FOLDER = join(import.meta.dir, "../../fixtures/nar");

export function fixtureBytes(name: string): Uint8Array {
  return new Uint8Array(readFileSync(join(FOLDER, name)));
}

export function fixtureText(name: string): string {
  return readFileSync(join(FOLDER, name), "utf8");
}

/** The NixcacheError that `action` throws; fails when it throws another thing, or nothing. */
export function thrownBy(action: () => unknown): NixcacheError {
  try {
    action();
  } catch (error) {
    if (error instanceof NixcacheError) return error;
    throw error;
  }
  throw new Error("expected a NixcacheError, nothing was thrown");
}

/** The same for a promise. */
export async function rejectionOf(promise: Promise<unknown>): Promise<NixcacheError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof NixcacheError) return error;
    throw error;
  }
  throw new Error("expected a NixcacheError, nothing was thrown");
}
