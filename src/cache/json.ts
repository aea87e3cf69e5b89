/** Reading JSON that somebody else wrote: every failure is a `corrupt` error that says where. */
import { NixcacheError } from "../errors.ts";

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

/** A short form of any value for a message. */
export function preview(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
