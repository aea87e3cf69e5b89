/** Registries that are not like distribution, as doubles with answers recorded from them: publish, read and gc on each. */
import { describe, expect, test } from "bun:test";
import type { NixcacheError } from "../../../src/errors.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { isStrict } from "../../../src/protocol/strictness.ts";
import { verify } from "../../../src/verify/verify.ts";
import { openAt, PATHS, publishFrom, publishOver, readOver } from "../../support/over-registry.ts";
import { party, TestHost } from "../../support/protocol.ts";
import { failure, type RegistryDouble, withDouble } from "../../support/registry-double.ts";
import { DISTRIBUTION, REAL_WAYS } from "../../support/registry-ways.ts";

const DAY = 86_400_000;
const NAMES = PATHS.map(({ name }) => name);
const POLICY = { retentionMs: 30 * DAY, keepLast: 1, keepBranches: [], dropBranches: [] };

describe.each(REAL_WAYS)("%s", (_, options) => {
  test("has what was published, for a stranger, and after a second publish and gc", () =>
    withDouble((double) => wholeRound(double, true), options));

  test("gets a blob again that has vanished before the commit", () =>
    withDouble(async (double) => {
      let vanished = false;
      double.faults.push(({ method, path }) => {
        if (method !== "PUT" || !path.includes("/manifests/seg-") || vanished) return undefined;
        vanished = true;
        const largest = [...double.blobs].sort(([, a], [, b]) => b.length - a.length)[0]?.[0] as string;
        double.blobs.delete(largest);
        return undefined;
      });
      const { result } = await publishOver(double);
      expect(vanished).toBe(true);
      expect(result.leftOut).toEqual([]);
      expect(await readOver(double)).toEqual(NAMES);
    }, options));
});

test("a registry that takes manifests with missing blobs", () =>
  withDouble((double) => wholeRound(double, false), { deletes: true }));

/** Publish, read, publish more, gc until what ended is deleted, read, verify. */
async function wholeRound(double: RegistryDouble, strict: boolean): Promise<void> {
  const host = new TestHost();
  using machine = party(openAt(double, host), host);
  const { result, warnings } = await publishFrom(machine, PATHS);
  expect(result.generation).not.toBeNull();
  expect(warnings).toEqual([]);
  expect(machine.database.view.state().strict).toBe(strict);
  expect(await readOver(double)).toEqual(NAMES);
  host.time += 60 * DAY;
  const more = [...PATHS, { name: "more", size: 700 }];
  expect((await publishFrom(machine, more)).result.paths).toMatchObject({ restated: 2, uploaded: 1 });
  await collectGarbage(machine, POLICY);
  host.time += 2 * DAY;
  const { freed } = await collectGarbage(machine, POLICY);
  expect(freed).toMatchObject({ gone: 1, refused: [] });
  expect(await readOver(double, more)).toEqual([...NAMES, "more"]);
  const { findings } = await verify({ ...machine, upstreams: [], keys: [] } as never, { deep: true });
  expect(findings).toEqual([]);
}

describe("a probe that cannot be judged", () => {
  const isProbe = (path: string) => path.includes("/manifests/sha256:");

  test.each<[string, () => Response]>([
    ["500 with a page", () => new Response("<!DOCTYPE html><title>Oops</title>", { status: 500 })],
    ["403", () => failure(403, "DENIED", "no pushing by digest")],
    ["400, also for a manifest that lacks nothing", () => failure(400, "MANIFEST_INVALID", "by tag only")],
    ["405", () => new Response("", { status: 405 })],
    ["418", () => new Response("", { status: 418 })],
    ["301 to a page", () => new Response("", { status: 301, headers: { location: "/login" } })],
  ])("%s: few tries, nothing remembered, and a publish that asks for every blob", async (_, answer) => {
    await withDouble(async (double) => {
      double.faults.push(({ method, path }) => (method === "PUT" && isProbe(path) ? answer() : undefined));
      double.faults.push(({ path }) =>
        path === "/login"
          ? new Response("<html><title>Sign in</title>", { headers: { "content-type": "text/html" } })
          : undefined,
      );
      const host = new TestHost();
      using machine = party(openAt(double, host), host);
      const { result, warnings } = await publishFrom(machine, PATHS);
      expect(result.generation).not.toBeNull();
      expect(warnings).toEqual([]);
      expect(machine.database.view.state().strict).toBeUndefined();
      // Every blob was held, and asked for, before the commit.
      const calls = double.requests.map(({ method, path }) => `${method} ${path}`);
      const hold = calls.findIndex((call) => /^PUT .*hold-/.test(call));
      const commit = calls.findIndex((call) => /^PUT .*seg-/.test(call));
      const asked = calls.slice(hold, commit).filter((call) => /^HEAD .*blobs/.test(call));
      expect(hold).toBeGreaterThan(0);
      expect(asked.length).toBeGreaterThanOrEqual(3);
      expect(await readOver(double)).toEqual(NAMES);
      // Asked once in a run, a few times.
      expect(double.count("PUT", /manifests\/sha256:/)).toBeLessThanOrEqual(6);
    }, DISTRIBUTION);
  });

  test("is asked for again in the next run", () =>
    withDouble(async (double) => {
      let fails = true;
      double.faults.push(({ method, path }) =>
        fails && method === "PUT" && isProbe(path) ? new Response("", { status: 500 }) : undefined,
      );
      const host = new TestHost();
      using machine = party(openAt(double, host), host);
      expect(await isStrict(machine)).toBe(false);
      expect(await isStrict(machine)).toBe(false);
      fails = false;
      expect(await isStrict({ ...machine, store: openAt(double, host) })).toBe(true);
      expect(machine.database.view.state().strict).toBe(true);
    }, DISTRIBUTION));

  test("that is interrupted is an interrupt, and no answer", () =>
    withDouble(async (double) => {
      const abort = new AbortController();
      double.faults.push(({ method, path }) => {
        if (method === "PUT" && isProbe(path)) abort.abort();
        return undefined;
      });
      const host = new TestHost();
      using machine = party(openAt(double, host), host);
      await expect(isStrict({ ...machine, signal: abort.signal })).rejects.toMatchObject({
        code: "interrupted",
      });
      expect(await isStrict(machine)).toBe(true);
    }, DISTRIBUTION));
});

describe("a page in the place of an answer", () => {
  const page = `<html>\n<head><title>Sign in</title></head>\n<body>\n<center><h1>Hello</h1></center></body></html>`;
  const answer = (status: number) => () =>
    new Response(page, { status, headers: { "content-type": "text/html; charset=utf-8" } });

  test.each<[string, string, RegExp, number, string]>([
    ["the list of tags", "GET", /tags\/list/, 200, "protocol"],
    ["an upload", "PUT", /blobs/, 403, "denied"],
    ["a commit", "PUT", /seg-/, 200, "protocol"],
    ["a commit", "PUT", /seg-/, 418, "protocol"],
    ["a commit", "PUT", /seg-/, 502, "unreachable"],
    ["a token", "GET", /^\/token/, 200, "protocol"],
    ["a token", "GET", /^\/token/, 500, "unreachable"],
  ])("of %s (%s %p, %d) is told by its title at most", async (_, method, path, status, code) => {
    await withDouble(async (double) => {
      double.faults.push((seen) =>
        seen.method === method && path.test(seen.path) ? answer(status)() : undefined,
      );
      const error = await publishOver(double).then(
        () => undefined,
        (error: NixcacheError) => error,
      );
      expect(error).toMatchObject({ code });
      expect(`${error?.message} ${error?.hint}`).not.toMatch(/[<>]|html|Hello/);
      if (code !== "denied" && !path.test("/token"))
        expect(error?.message).toContain('a web page: "Sign in"');
    }, DISTRIBUTION);
  });

  test("of an upload leaves its paths out", () =>
    withDouble(async (double) => {
      double.faults.push(({ method, path }) =>
        method === "PUT" && path.includes("/blobs/") ? answer(200)() : undefined,
      );
      const { result } = await publishOver(double);
      expect(result.leftOut.map(({ reason }) => reason)).toEqual([
        expect.stringMatching(/got 200 \(a web page: "Sign in"\)$/),
        expect.stringMatching(/got 200 \(a web page: "Sign in"\)$/),
      ]);
    }, DISTRIBUTION));
});
