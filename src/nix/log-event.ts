/**
 * What Nix's commands write with `--log-format internal-json`: lines of `@nix ` and a JSON object. The same numbers
 * since 2.4. https://github.com/NixOS/nix/blob/master/src/libutil/include/nix/util/logging.hh
 */

/** Types of activities; `waiting` is a derivation that another one is built in the place of, with both as its fields. */
export const ACTIVITY = { builds: 104, build: 105, waiting: 111 } as const;

/** Types of results. */
export const RESULT = { logLine: 101, progress: 105 } as const;

/** Levels of messages and activities: up to this one Nix shows them unless told otherwise. */
export const INFO_LEVEL = 3;

export type LogEvent =
  | {
      readonly action: "start";
      /** 64 bits, as decimal digits. */
      readonly id: string;
      readonly type: number;
      readonly level: number;
      readonly text: string;
      readonly fields: readonly (string | number)[];
    }
  | { readonly action: "stop"; readonly id: string }
  | {
      readonly action: "result";
      readonly id: string;
      readonly type: number;
      readonly fields: readonly (string | number)[];
    }
  /** May have several lines, without colours. An error comes without the word. */
  | { readonly action: "message"; readonly level: number; readonly text: string; readonly error: boolean };

/** The event in a line; the line itself as a message when it is none: not all that Nix starts speaks JSON. */
export function parseLogLine(line: string): LogEvent {
  const event = line.startsWith("@nix ") ? decode(line.slice("@nix ".length)) : undefined;
  return event ?? { action: "message", level: INFO_LEVEL, text: Bun.stripANSI(line), error: false };
}

function decode(json: string): LogEvent | undefined {
  let object: Record<string, unknown>;
  try {
    object = JSON.parse(json) ?? {};
  } catch {
    return undefined;
  }
  // A number in JavaScript has 53 bits; in a JSON text there is no such sequence inside of strings.
  const id = /"id":(\d+)/.exec(json)?.[1] ?? "";
  const number = (value: unknown) => (typeof value === "number" ? value : 0);
  const text = (value: unknown) => (typeof value === "string" ? Bun.stripANSI(value) : "");
  const fields = (Array.isArray(object.fields) ? object.fields : []) as (string | number)[];
  const type = number(object.type);
  switch (object.action) {
    case "start":
      return { action: "start", id, type, level: number(object.level), text: text(object.text), fields };
    case "stop":
      return { action: "stop", id };
    case "result":
      return { action: "result", id, type, fields };
    case "msg": {
      // Errors that a daemon logs have no `raw_msg`.
      const said = text(object.msg);
      const error = /^error: */.exec(said)?.[0];
      const words = error === undefined ? said : text(object.raw_msg) || said.slice(error.length);
      return { action: "message", level: number(object.level), text: words, error: error !== undefined };
    }
    default:
      return undefined;
  }
}
