/** Reading JSON that somebody else wrote: every failure is a `corrupt` error that says where. */
import { NixcacheError, preview } from "../errors.ts";

export type JsonObject = Record<string, unknown>;

/** @throws `corrupt`, naming `where`, when `text` is not one JSON object. */
export function parseJsonObject(text: string, where: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new NixcacheError("corrupt", `${where}: not valid JSON`, { cause });
  }
  return asObject(value, where);
}

export function asObject(value: unknown, where: string): JsonObject {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new NixcacheError("corrupt", `${where}: got ${preview(value)}, expected a JSON object`);
  }
  return value as JsonObject;
}

/**
 * The JSON of a value that was parsed.
 * @throws `corrupt`, naming `where`, for one that is nested too deeply to be written: reading has no such limit.
 */
export function stringifyJson(value: JsonObject, where: string): string {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    throw new NixcacheError("corrupt", `${where}: the JSON is nested too deeply`, { cause });
  }
}
