/** Parsers of JSON that strangers write: depth, prototypes, floods of fields, numbers that are none. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { entryOf, formatLine, parseLine } from "../../src/cache/entry.ts";
import { parseJsonObject } from "../../src/cache/json.ts";
import { decodeParts } from "../../src/cache/part.ts";
import { decodeRecord, encodeRecord, sameLine } from "../../src/cache/record.ts";
import { V1IndexParser } from "../../src/cache/v1-index.ts";
import type { ErrorCode } from "../../src/errors.ts";
import { decodeIndex, encodeIndex } from "../../src/oci/layout-index.ts";
import { decodeManifest, encodeManifest, parseJson } from "../../src/oci/manifest.ts";
import { classify, messageWait, parseErrors, retryAfter } from "../../src/oci/retry.ts";
import { corpus, mutated, mutatedText } from "./mutate.ts";
import { attempt, expectUnpolluted, fuzz } from "./property.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const object = (text: string) => parseJsonObject(text, "test");

function manifest(input: Uint8Array): void {
  const decoded = decodeManifest(input, "manifest");
  expect(decodeManifest(encodeManifest(decoded), "again")).toEqual(decoded);
}

function record(text: string): void {
  const decoded = decodeRecord(object(text), "record");
  expect(decodeRecord(JSON.parse(JSON.stringify(encodeRecord(decoded))), "again")).toEqual(decoded);
  expect(sameLine(decoded, decoded)).toBe(true);
}

function line(text: string): void {
  const parsed = parseLine(text, "line");
  expect(parseLine(formatLine(parsed), "again")).toEqual(parsed);
  expect(parsed.file).not.toContain("/");
  const { parts, info } = entryOf(parsed);
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (info.fileSize !== undefined) expect(length).toBe(info.fileSize);
  for (const part of parts) expect(part.offset + part.length).toBeLessThanOrEqual(part.size);
}

function layoutIndex(input: Uint8Array): void {
  encodeIndex(decodeIndex(input, "index.json"));
}

function errors(text: string): void {
  for (const { code, message } of parseErrors(text))
    expect([typeof code, typeof message]).toEqual(["string", "string"]);
  for (const status of [200, 401, 403, 404, 429, 500]) classify(status, new Headers(), text, 0);
  for (const wait of [messageWait(text), retryAfter(text, 0)]) {
    if (wait !== undefined) expect(wait).toBeGreaterThanOrEqual(0);
  }
}

/** Whatever the entries are, an index that is JSON is read to its end, in chunks of any size. */
function v1Index(text: string): void {
  const input = bytes(text);
  const parser = new V1IndexParser("v1");
  for (let at = 0; at < input.length; at += 97) {
    for (const item of parser.push(input.subarray(at, at + 97))) {
      if ("line" in item) expect(parseLine(formatLine(item.line), "again")).toEqual(item.line);
      else expect(String(item.problem)).not.toBe("");
    }
  }
  parser.end();
}

/** Each takes a text; what it says of it is checked too. */
const PARSERS: Record<string, { parse: (text: string) => void; codes: readonly ErrorCode[] }> = {
  manifest: { parse: (text) => manifest(bytes(text)), codes: ["corrupt"] },
  record: { parse: record, codes: ["corrupt"] },
  line: { parse: line, codes: ["corrupt"] },
  parts: { parse: (text) => decodeParts(parseJson(bytes(text), "parts"), "parts"), codes: ["corrupt"] },
  "v1-index": { parse: v1Index, codes: ["corrupt"] },
  "layout-index": { parse: (text) => layoutIndex(bytes(text)), codes: ["corrupt"] },
  "registry-errors": { parse: errors, codes: [] },
};

const whole = (text: string): void => {
  object(text);
};

describe.each(Object.entries(PARSERS))("%s", (name, { parse, codes }) => {
  test("bent texts", () => {
    fuzz(mutatedText(corpus(name)), 2500, codes, parse);
  });

  test("right texts", () => {
    // What is in the corpus and refused is refused for what it is, not for what it holds.
    const refused = new Set(["docker.json", "index.json"]);
    let taken = 0;
    for (const entry of corpus(name)) {
      if (attempt(codes, () => parse(Buffer.from(entry).toString())) !== undefined) taken++;
    }
    expect(taken).toBeGreaterThanOrEqual(Math.max(1, corpus(name).length - refused.size));
    expectUnpolluted();
  });

  test("any JSON in place of any value", () => {
    const values = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.constantFrom<unknown>(-0, 1e308, 2 ** 53, -1, 0.5, "", "x".repeat(5000), "\u001b[2J", [], {}, null),
    );
    const entries = corpus(name).map((entry) => Buffer.from(entry).toString());
    const inputs = fc.tuple(fc.constantFrom(...entries), fc.nat(40), values).map(([text, index, value]) => {
      let seen = 0;
      try {
        return JSON.stringify(JSON.parse(text), (key, old) => (key !== "" && seen++ === index ? value : old));
      } catch {
        return text;
      }
    });
    fuzz(inputs, 1500, codes, parse);
  });

  test("every field of every object named __proto__, constructor, or by what drives a terminal", () => {
    for (const entry of corpus(name)) {
      const text = Buffer.from(entry).toString();
      const names = new Set(text.match(/"[^"\\]*"(?=:)/g) ?? []);
      for (const field of names) {
        for (const other of [
          '"__proto__"',
          '"constructor"',
          '"\\u001b[2J\\u009b"',
          `"${"k".repeat(9000)}"`,
        ]) {
          attempt(codes, () => parse(text.replaceAll(`${field}:`, `${other}:`)));
          attempt(codes, () => parse(text.replaceAll(`${field}:`, `${other}:{"polluted":1},${field}:`)));
          attempt(codes, () =>
            parse(text.replaceAll(`${field}:`, `${field}:{${other}:{"polluted":[1]}},"x":`)),
          );
        }
      }
    }
    expectUnpolluted();
  });

  test("nesting of any depth in place of every value", () => {
    const opens = ["[", '{"a":', '[{"":'];
    const harmless = opens.map((open) => nest(open, 2000));
    // JSON.parse takes these, JSON.stringify runs out of stack, which takes it half a second.
    const deep = opens.map((open) => nest(open, name === "registry-errors" ? 10_000 : 60_000));
    for (const [index, entry] of corpus(name).entries()) {
      const text = Buffer.from(entry).toString();
      const colons = [...text.matchAll(/":/g)].map((mark) => mark.index + 2);
      const bend = (at: number, value = ""): void => {
        // The old value stays, under another name.
        attempt(codes, () => parse(`${text.slice(0, at)}${value},"old":${text.slice(at)}`));
      };
      for (const at of colons) bend(at, harmless[at % harmless.length]);
      if (index > 0) continue;
      for (const [turn, value] of deep.entries()) {
        attempt(codes, () => parse(value));
        const at = colons[(turn * 7) % colons.length];
        if (at !== undefined) bend(at, value);
        // A field that nobody knows.
        if (text.startsWith("{")) attempt(codes, () => parse(`{"unknown":${value},${text.slice(1)}`));
      }
    }
  });
});

function nest(open: string, depth: number): string {
  const close = [...open]
    .reverse()
    .map((c) => (c === "[" ? "]" : c === "{" ? "}" : ""))
    .join("");
  return `${open.repeat(depth)}${open.endsWith(":") ? "1" : ""}${close.repeat(depth)}`;
}

test("JSON itself", () => {
  fuzz(mutatedText(corpus("json")), 2000, ["corrupt"], whole);
  fuzz(mutated(corpus("json")), 2000, ["corrupt"], (input) => void parseJson(input, "json"));
});
