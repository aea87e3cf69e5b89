import { describe, expect, test } from "bun:test";
import { BuildLog, derivationName } from "../../../src/build/build-log.ts";
import { parseLogLine } from "../../../src/nix/log-event.ts";

const drv = (name: string) => `/nix/store/${"a".repeat(32)}-${name}.drv`;

/** What a log shows and remembers of events, written as Nix writes them. */
function logOf(...events: (object | string)[]) {
  const shown: string[] = [];
  const log = new BuildLog((line) => shown.push(line));
  let now = 0;
  for (const event of events) {
    now += 1000;
    log.add(parseLogLine(typeof event === "string" ? event : `@nix ${JSON.stringify(event)}`), now);
  }
  return { log, shown };
}

const start = (id: number, name: string) => {
  return {
    action: "start",
    id,
    type: 105,
    level: 3,
    text: `building '${drv(name)}'`,
    fields: [drv(name), "", 1, 1],
  };
};
const line = (id: number, text: string) => ({ action: "result", id, type: 101, fields: [text] });
const error = (raw: string) => {
  return { action: "msg", level: 0, msg: `\u001b[31;1merror:\u001b[0m ${raw}`, raw_msg: raw };
};

describe("why a derivation failed", () => {
  test.each<[string, string, string | undefined]>([
    ["2.8", `builder for '${drv("x")}' failed with exit code 3`, "builder failed with exit code 3"],
    [
      "2.8 with the log, which we have",
      `builder for '${drv("x")}' failed with exit code 3;\n       last 2 log lines:\n       > a\n       > b`,
      "builder failed with exit code 3",
    ],
    [
      "2.34",
      `Cannot build '${drv("x")}'.\nReason: builder failed with exit code 3.\nOutput paths:\n  /nix/store/…-x\nLast 1 log lines:\n> no`,
      "builder failed with exit code 3",
    ],
    [
      "2.34, another system",
      `Cannot build '${drv("x")}'.\nReason: platform mismatch\nRequired system: 'a-b'\nCurrent system: 'c-d'`,
      "platform mismatch Required system: 'a-b' Current system: 'c-d'",
    ],
    [
      "a wrong hash",
      `hash mismatch in fixed-output derivation '${drv("x")}':\n         specified: sha256-A=\n            got:    sha256-B=`,
      "hash mismatch in fixed-output derivation: specified: sha256-A= got: sha256-B=",
    ],
    ["2.8, what it needs failed", `1 dependencies of derivation '${drv("x")}' failed to build`, undefined],
    ["2.34, what it needs failed", `Cannot build '${drv("x")}'.\nReason: 1 dependency failed.`, undefined],
    ["the summary", `build of '${drv("x")}', '${drv("y")}' failed`, undefined],
  ])("%s", (_, text, reason) => {
    expect(logOf(error(text)).log.failures.get(drv("x"))).toBe(reason);
    // A daemon has put its errors into words already.
    const words = { action: "msg", level: 0, msg: `error: ${text}` };
    expect(logOf(words).log.failures.get(drv("x"))).toBe(reason);
  });

  test("an error that names none is kept for those that have no other", () => {
    expect(logOf(error("unrecognised flag '--x'")).log.error).toBe("unrecognised flag '--x'");
  });
});

test("log lines go to the build whose they are, also where ids need 54 bits", () => {
  const raw = (id: string, name: string) =>
    `@nix ${JSON.stringify(start(0, name)).replace('"id":0', `"id":${id}`)}`;
  const said = (id: string, text: string) =>
    `@nix {"action":"result","fields":["${text}"],"id":${id},"type":101}`;
  const { log, shown } = logOf(
    raw("9007199254740992", "one"),
    raw("9007199254740993", "two"),
    said("9007199254740992", 'first \\"id\\":5'),
    said("9007199254740993", "second"),
  );
  expect(log.builds.get(drv("one"))?.tail).toEqual(['first "id":5']);
  expect(log.builds.get(drv("two"))?.tail).toEqual(["second"]);
  expect(shown).toContain("two> second");
});

test("of a log the last lines are kept, printable and not endless", () => {
  const many = Array.from({ length: 60 }, (_, n) => line(1, `line ${n}`));
  const { log, shown } = logOf(
    start(1, "x"),
    ...many,
    line(1, "\u001b[31mred\u001b[0m\u001b]0;title\u0007\tend"),
    line(1, "10%\r50%\r90%"),
    line(1, "y".repeat(100_000)),
    { action: "stop", id: 1 },
    line(1, "too late"),
  );
  const tail = log.builds.get(drv("x"))?.tail ?? [];
  expect(tail.length).toBe(25);
  expect(tail.slice(-3, -1)).toEqual(["red    end", "90%"]);
  expect(tail.at(-1)?.length).toBe(500);
  expect(shown.length).toBe(1 + 60 + 3);
  expect(log.builds.get(drv("x"))).toMatchObject({ started: 1000, ended: 65_000 });
});

test("a failure ends the build's time, though Nix lets go of it later", () => {
  const { log } = logOf(start(1, "x"), error(`builder for '${drv("x")}' failed`), "", {
    action: "stop",
    id: 1,
  });
  expect(log.builds.get(drv("x"))?.ended).toBe(2000);
});

test("what is built in the place of a derivation counts as its build", () => {
  const waiting = {
    action: "start",
    id: 1,
    type: 111,
    level: 3,
    text: "",
    fields: [drv("x"), drv("resolved-x")],
  };
  const { log } = logOf(
    waiting,
    start(2, "resolved-x"),
    line(2, "a word"),
    error(`builder for '${drv("resolved-x")}' failed with exit code 3`),
  );
  expect(log.failureOf(drv("x"))).toBe("builder failed with exit code 3");
  expect(log.buildOf(drv("x"))).toMatchObject({ started: 2000, ended: 4000, tail: ["a word"] });
  expect(log.failureOf(drv("y"))).toBeUndefined();
  expect(log.buildOf(drv("y"))).toBeUndefined();
});

describe("warnings that we are not trusted", () => {
  const given = [
    "--option",
    "extra-substituters",
    "http://127.0.0.1:1/a",
    "--option",
    "extra-trusted-public-keys",
  ];
  const warning = (text: string) => ({
    action: "msg",
    level: 1,
    msg: `\u001b[35;1mwarning:\u001b[0m ${text}`,
  });
  const untrusted = (...texts: string[]) => {
    const log = new BuildLog(() => {}, given);
    for (const text of texts) log.add(parseLogLine(`@nix ${JSON.stringify(warning(text))}`), 0);
    return log.untrusted;
  };

  test.each([
    ["Nix 2.8", "ignoring untrusted substituter 'http://127.0.0.1:1/a'"],
    [
      "Nix 2.26, with advice on another line",
      "ignoring untrusted substituter 'http://127.0.0.1:1/a', you are not a trusted user.\nRun `man nix.conf` for more",
    ],
    [
      "a key",
      "ignoring the client-specified setting 'trusted-public-keys', because it is a restricted setting and you are not a trusted user",
    ],
  ])("%s", (_, text) => {
    expect(untrusted("something else", text)).toBe(`warning: ${text.split("\n")[0]}`);
  });

  test("are not those for what a person's own settings say", () => {
    const own = "ignoring untrusted substituter 'https://cache.nixos.org/', you are not a trusted user.";
    const setting = "ignoring the client-specified setting 'sandbox', because it is a restricted setting";
    expect(untrusted(own, setting)).toBeUndefined();
  });
});

test("the state counts what Nix counts", () => {
  const progress = (...fields: number[]) => ({ action: "result", id: 1, type: 105, fields });
  const { log } = logOf(
    { action: "start", id: 1, type: 104, level: 0, text: "" },
    start(2, "a"),
    start(3, "b"),
    progress(1, 7, 1, 2),
    line(3, "words"),
  );
  expect(log.state()).toEqual({ built: 1, expected: 7, failed: 2, running: ["b"], lastLine: "words" });
});

test.each(["@nix {", "@nix []", "@nix null", '@nix {"action":"other"}', "plain words", "@nixx"])(
  "%j is shown as it is",
  (text) => {
    expect(parseLogLine(text)).toEqual({ action: "message", level: 3, text, error: false });
  },
);

test("the name of a derivation", () => {
  expect(derivationName(drv("hello-2.12"))).toBe("hello-2.12");
});
