import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { NixcacheError } from "../../../src/errors.ts";
import {
  AnsweredWith,
  BRISK,
  classify,
  Late,
  lastAnswer,
  messageWait,
  networkFailure,
  PATIENT,
  parseErrors,
  retryAfter,
  TransientFailure,
  type Verdict,
  waitBefore,
  withRetry,
} from "../../../src/oci/retry.ts";
import { testNetwork } from "./network.ts";

const NOW = Date.UTC(2026, 0, 1);
const errors = (code: string, message = "") => JSON.stringify({ errors: [{ code, message }] });
const judge = (status: number, body = "", headers: Record<string, string> = {}) =>
  classify(status, new Headers(headers), body, NOW);

test.each<[number, string, Record<string, string>, Verdict]>([
  [200, "", {}, { kind: "ok" }],
  [206, "", {}, { kind: "ok" }],
  [304, "", {}, { kind: "ok" }],
  [307, "", {}, { kind: "ok" }],
  [404, "", {}, { kind: "absent" }],
  [404, errors("NAME_UNKNOWN"), {}, { kind: "absent" }],
  [404, errors("MANIFEST_UNKNOWN"), {}, { kind: "absent" }],
  [404, "<html>", {}, { kind: "absent" }],
  [404, errors("BLOB_UPLOAD_UNKNOWN"), {}, { kind: "retry" }],
  [404, errors("blob_upload_unknown"), {}, { kind: "retry" }],
  [400, errors("BLOB_UPLOAD_INVALID"), {}, { kind: "retry" }],
  [404, errors("UNAUTHORIZED"), {}, { kind: "denied" }],
  [404, errors("DENIED"), {}, { kind: "denied" }],
  [410, "", {}, { kind: "fatal" }],
  [401, "", {}, { kind: "denied" }],
  [403, errors("DENIED"), {}, { kind: "denied" }],
  [
    403,
    errors("DENIED", "You have exceeded a secondary rate limit. Please wait a few minutes."),
    {},
    { kind: "retry", afterMs: 60_000 },
  ],
  [403, "secondary rate limit", { "retry-after": "90" }, { kind: "retry", afterMs: 90_000 }],
  [429, "", {}, { kind: "retry" }],
  [429, "", { "retry-after": "7" }, { kind: "retry", afterMs: 7000 }],
  [429, "", { "retry-after": "Thu, 01 Jan 2026 00:01:30 GMT" }, { kind: "retry", afterMs: 90_000 }],
  [
    429,
    errors("TOOMANYREQUESTS", "retry-after: 10.305464ms, allowed: 2000/minute"),
    {},
    { kind: "retry", afterMs: 11 },
  ],
  [400, errors("TOOMANYREQUESTS", "retry-after: 1m2.5s"), {}, { kind: "retry", afterMs: 62_500 }],
  [408, "", {}, { kind: "retry" }],
  [500, "", {}, { kind: "retry" }],
  [501, "", {}, { kind: "fatal" }],
  [502, "Bad Gateway", {}, { kind: "retry" }],
  [503, "", { "retry-after": "2" }, { kind: "retry", afterMs: 2000 }],
  [504, "", {}, { kind: "retry" }],
  [522, "", {}, { kind: "retry" }],
  [400, errors("MANIFEST_INVALID"), {}, { kind: "fatal" }],
  [405, errors("UNSUPPORTED"), {}, { kind: "fatal" }],
  [415, "", {}, { kind: "fatal" }],
  [416, "", {}, { kind: "fatal" }],
])("%d %s %j", (status, body, headers, expected) => {
  expect(judge(status, body, headers)).toEqual(expected);
});

test.each<[string | null, number | undefined]>([
  [null, undefined],
  ["", undefined],
  ["0", 0],
  [" 3 ", 3000],
  ["1.5", 1500],
  ["-1", undefined],
  ["1e9", undefined],
  ["soon", undefined],
  ["99999999999999", undefined],
  ["Wed, 31 Dec 2025 23:59:59 GMT", 0],
])("Retry-After %j", (text, expected) => {
  expect(retryAfter(text, NOW)).toBe(expected as never);
});

test.each<[string, number | undefined]>([
  ["retry-after: 880.092µs, allowed: 44000/minute", 1],
  ["retry-after: 247ns", 1],
  ["toomanyrequests: retry-after: 1.5s", 1500],
  ["retry-after: 1h1m1s", 3_661_000],
  ["retry-after: soon", undefined],
  ["", undefined],
])("a wait in a message: %j", (text, expected) => {
  expect(messageWait(text)).toBe(expected as never);
});

test("only 404 is ever absent, whatever the answer holds; waits are whole and not negative", () => {
  const body = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .tuple(fc.constantFrom("NAME_UNKNOWN", "DENIED", "TOOMANYREQUESTS", "BLOB_UPLOAD_UNKNOWN"), fc.string())
      .map(([code, message]) => errors(code, message)),
  );
  const headers = fc.record({
    "retry-after": fc.oneof(
      fc.string(),
      fc.integer().map(String),
      fc.date({ noInvalidDate: true }).map((d) => d.toUTCString()),
    ),
  });
  fc.assert(
    fc.property(
      fc.integer({ min: 100, max: 599 }),
      body,
      headers,
      (status, text, { "retry-after": after }) => {
        const verdict = classify(status, { get: () => after }, text, NOW);
        if (verdict.kind === "absent") expect(status).toBe(404);
        if (verdict.kind === "ok") expect(status).toBeLessThan(400);
        if (verdict.kind === "retry" && verdict.afterMs !== undefined)
          expect(verdict.afterMs).toBeGreaterThanOrEqual(0);
      },
    ),
    { numRuns: 1000 },
  );
});

test("errors of any shape are read without an error", () => {
  fc.assert(fc.property(fc.oneof(fc.json(), fc.string()), (text) => Array.isArray(parseErrors(text))));
  expect(parseErrors('{"errors":[null,5,{"code":"x"},{"code":7,"message":[]}]}')).toEqual([
    { code: "X", message: "", detail: undefined },
    { code: "", message: "", detail: undefined },
  ]);
});

describe("waits", () => {
  test("double from the floor to the cap, never below what is asked for, plus half at most", () => {
    expect([1, 2, 3, 4].map((n) => waitBefore(n, PATIENT, 0))).toEqual([500, 1000, 2000, 4000]);
    expect(waitBefore(20, PATIENT, 0)).toBe(60_000);
    expect(waitBefore(1, PATIENT, 0, 2)).toBe(500);
    expect(waitBefore(1, PATIENT, 0, 90_000)).toBe(90_000);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10_000 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        fc.nat(1e7),
        (n, random, asked) => {
          const wait = waitBefore(n, PATIENT, random, asked);
          expect(wait).toBeGreaterThanOrEqual(Math.max(500, asked));
          expect(wait).toBeLessThanOrEqual(Math.max(PATIENT.capMs, asked) * 1.5);
        },
      ),
    );
  });
});

describe("trying again", () => {
  const failure = new NixcacheError("unreachable", "PUT x: got 502", { hint: "Wait." });
  const failing = (times: number, afterMs?: number, few?: "refused" | "late" | "damaged") => {
    let tries = 0;
    const attempt = async () => {
      if (++tries <= times) throw new TransientFailure(failure, afterMs, few);
      return tries;
    };
    return { attempt, tries: () => tries };
  };

  test("ends with the first success", async () => {
    const network = testNetwork();
    expect(await withRetry(PATIENT, network, failing(3).attempt)).toBe(4);
    expect(network.sleeps).toEqual([500, 1000, 2000]);
  });

  test("ends after the policy's number of tries, with the failure's code and hint", async () => {
    const network = testNetwork();
    const { attempt, tries } = failing(100);
    await expect(withRetry(PATIENT, network, attempt)).rejects.toMatchObject({
      code: "unreachable",
      message: "PUT x: got 502 (8 tries in 63.5 s of waiting)",
      hint: "Wait.",
    });
    expect(tries()).toBe(PATIENT.attempts);
  });

  test("ends at once when it is asked to wait beyond the budget", async () => {
    const network = testNetwork();
    const { attempt, tries } = failing(100, 3_600_000);
    await expect(withRetry(PATIENT, network, attempt)).rejects.toThrow("asks to wait 3600 s more");
    expect([tries(), network.sleeps]).toEqual([1, []]);
  });

  test("is short where nobody listens", async () => {
    const network = testNetwork();
    const { attempt, tries } = failing(100, undefined, "refused");
    await expect(withRetry(PATIENT, network, attempt)).rejects.toMatchObject({ code: "unreachable" });
    expect(tries()).toBe(3);
    expect(network.sleeps.reduce((a, b) => a + b)).toBeLessThanOrEqual(3000);
    const brisk = failing(100, undefined, "refused");
    await expect(withRetry(BRISK, network, brisk.attempt)).rejects.toBe(failure);
    expect(brisk.tries()).toBe(1);
  });

  test("is no further wait for whoever answers a client, where no answer came in time", async () => {
    const network = testNetwork();
    const { few } = networkFailure("GET x", new Late("no answer for 10 s"));
    const brisk = failing(100, undefined, few as "late");
    await expect(withRetry(BRISK, network, brisk.attempt)).rejects.toBe(failure);
    expect([brisk.tries(), network.sleeps]).toEqual([1, []]);
    const patient = failing(100, undefined, few as "late");
    await expect(withRetry({ ...PATIENT, attempts: 9 }, network, patient.attempt)).rejects.toThrow("9 tries");
  });

  test("keeps what the registry has answered, and how long it asks to wait", async () => {
    const attempt = async () => {
      const cause = new AnsweredWith(429, 90_000);
      throw new TransientFailure(new NixcacheError("unreachable", "GET x: got 429", { cause }), 90_000);
    };
    const error = await withRetry(BRISK, testNetwork(), attempt).catch((thrown) => thrown);
    expect(lastAnswer(error)).toMatchObject({ status: 429, afterMs: 90_000 });
    expect(error.message).toContain("asks to wait 90 s more");
  });

  test("is not for what no other try can mend", async () => {
    const network = testNetwork();
    const error = Object.assign(new Error("certificate has expired"), { code: "CERT_HAS_EXPIRED" });
    let tries = 0;
    const attempt = async () => {
      tries++;
      throw networkFailure("GET r/v2", new Error("fetch failed", { cause: error }));
    };
    await expect(withRetry(PATIENT, network, attempt)).rejects.toMatchObject({
      code: "unreachable",
      message: "GET r/v2: the certificate of the server has expired",
      hint: expect.stringContaining("Renew the certificate"),
    });
    expect([tries, network.sleeps]).toEqual([1, []]);
  });

  test("is only for what is transient", async () => {
    const network = testNetwork();
    let tries = 0;
    const attempt = async () => {
      tries++;
      throw new NixcacheError("denied", "no");
    };
    await expect(withRetry(PATIENT, network, attempt)).rejects.toMatchObject({ code: "denied" });
    expect(tries).toBe(1);
  });

  test("stops when somebody interrupts, before a try and during a wait", async () => {
    for (const which of ["own", "global"]) {
      const controller = new AbortController();
      const network = testNetwork(which === "global" ? controller.signal : new AbortController().signal);
      const signal = which === "own" ? controller.signal : undefined;
      const { attempt, tries } = failing(100);
      const sleep: typeof network.sleep = async (ms, stop) => {
        controller.abort();
        return network.sleep(ms, stop);
      };
      await expect(withRetry(PATIENT, { ...network, sleep }, attempt, signal)).rejects.toMatchObject({
        code: "interrupted",
      });
      await expect(withRetry(PATIENT, network, attempt, signal)).rejects.toMatchObject({
        code: "interrupted",
      });
      expect(tries()).toBe(1);
    }
  });

  test("what fetch throws becomes one sentence", async () => {
    const thrown = await fetch("http://127.0.0.1:1/").catch((error) => error);
    const refused = networkFailure("GET x", new Error("wrapped", { cause: thrown }));
    expect(refused).toMatchObject({
      few: "refused",
      failure: { code: "unreachable", message: "GET x: nobody listens there (connection refused)" },
    });
    const unknown = await fetch("http://nosuch.invalid/").catch((error) => error);
    expect(networkFailure("GET x", unknown)).toMatchObject({ few: "refused" });
    expect(networkFailure("GET x", new Error("odd"))).toMatchObject({
      few: undefined,
      failure: { message: "GET x: odd" },
    });
  });
});
