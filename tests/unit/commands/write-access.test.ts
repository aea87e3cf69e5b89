/** What comes of asking whether a cache can be written to. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Arguments } from "../../../src/commands/command.ts";
import {
  expectsReadOnly,
  readOnlyReason,
  requireWrite,
  whyReadOnly,
} from "../../../src/commands/write-access.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { parseReference } from "../../../src/oci/reference.ts";
import type { Store } from "../../../src/oci/store.ts";
import { commandContext } from "../../support/command-context.ts";

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const given = (...flags: string[]) =>
  ({ flag: (name: string) => flags.includes(name) }) as unknown as Arguments;
const storeThat = (checkWrite: Store["checkWrite"]) => ({ name: "the cache", checkWrite }) as Store;
const fails = (error: unknown) => async () => {
  throw error;
};

/** A folder that holds something else: nobody can make a cache of it. */
const OTHER = parseReference(folder);
writeFileSync(join(folder, "file"), "something else");
const FREE = parseReference(join(folder, "new", "cache"));

function fork(): Record<string, string> {
  const event = join(folder, "event.json");
  writeFileSync(event, JSON.stringify({ pull_request: { head: { repo: { full_name: "you/r" } } } }));
  return {
    ...{ GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "me/r" },
    ...{ GITHUB_EVENT_NAME: "pull_request", GITHUB_EVENT_PATH: event },
  };
}

describe("whether a store can be written to", () => {
  test("it can, as it says, or where it says nothing", async () => {
    const { context, logged } = commandContext();
    expect(
      await whyReadOnly(
        storeThat(async () => {}),
        context,
      ),
    ).toBeUndefined();
    expect(await whyReadOnly(storeThat(undefined), context)).toBeUndefined();
    expect(logged).toEqual([]);
  });

  test.each(["denied", "filesystem", "layout"] as const)("it cannot, by %s", async (code) => {
    const { context, logged } = commandContext();
    const error = new NixcacheError(code, "no");
    expect(await whyReadOnly(storeThat(fails(error)), context)).toBe(error);
    expect(logged).toEqual([]);
  });

  test.each(["unreachable", "protocol", "corrupt"] as const)(
    "that is not known, by %s: go on",
    async (code) => {
      const { context, logged } = commandContext();
      expect(
        await whyReadOnly(storeThat(fails(new NixcacheError(code, "no answer"))), context),
      ).toBeUndefined();
      expect(logged).toEqual(["warn: whether the cache can be written to is not known: no answer; going on"]);
    },
  );

  test("a signal and a defect end it", async () => {
    const { context } = commandContext();
    const stopped = { ...context, signal: AbortSignal.abort() };
    const error = new NixcacheError("unreachable", "stopped");
    await expect(whyReadOnly(storeThat(fails(error)), stopped)).rejects.toBe(error);
    await expect(whyReadOnly(storeThat(fails(new TypeError("a defect"))), context)).rejects.toThrow(
      "a defect",
    );
  });
});

describe("before a publish builds", () => {
  test("a cache that can be written to is no reason", async () => {
    const { context, logged } = commandContext();
    expect(await readOnlyReason(given("read-only-ok"), FREE, context)).toBeUndefined();
    expect(logged).toEqual([]);
  });

  test("one that cannot is an error, which names the flag", async () => {
    const { context } = commandContext();
    await expect(readOnlyReason(given(), OTHER, context)).rejects.toMatchObject({
      code: "layout",
      message: expect.stringMatching(/expected an OCI image layout.*; nothing was built$/),
      hint: expect.stringMatching(/^Name another folder.* With --read-only-ok publish builds all the same/),
    });
  });

  test.each<[string, string[], () => Record<string, string>, string]>([
    ["where that is allowed", ["read-only-ok"], () => ({}), "(--read-only-ok)"],
    ["in a pull request from a fork", [], fork, "(a pull request from a fork)"],
  ])("one that cannot is a reason %s, and told", async (_, flags, env, why) => {
    const { context, logged } = commandContext(env());
    expect(await readOnlyReason(given(...flags), OTHER, context)).toEndWith(why);
    expect(logged).toEqual([expect.stringMatching(/^warn: .*: nothing is published$/)]);
    expect(expectsReadOnly(given(...flags), context)).toBe(true);
  });

  test("elsewhere nobody expects it", () => {
    const { GITHUB_ACTIONS: _, ...outside } = fork();
    for (const env of [{}, outside, { ...fork(), GITHUB_EVENT_NAME: "push" }])
      expect(expectsReadOnly(given(), commandContext(env).context)).toBe(false);
  });
});

test("a command that must write ends where it cannot", async () => {
  const { context } = commandContext();
  await requireWrite(FREE, context);
  await expect(requireWrite(OTHER, context)).rejects.toMatchObject({ code: "layout" });
});
