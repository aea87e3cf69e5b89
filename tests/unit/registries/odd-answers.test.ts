/**
 * All that a registry must answer rightly is what `docker push` and `docker pull` ask of it, and the list of tags.
 * Whatever it answers to what is asked beside that, a first publish ends, and the cache is read right.
 */
import { describe, expect, test } from "bun:test";
import { holdTag, segmentTag } from "../../../src/cache/tags.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { endGenerations, sweep } from "../../../src/protocol/end.ts";
import { NETWORK_OR_LIMIT, ODD_ANSWERS, type OddAnswer } from "../../support/odd-answers.ts";
import { openAt, PATHS, publishOver, readOver } from "../../support/over-registry.ts";
import { commitNames, party, TestHost } from "../../support/protocol.ts";
import { type DoubleOptions, type SeenRequest, withDouble } from "../../support/registry-double.ts";
import { DISTRIBUTION } from "../../support/registry-ways.ts";

const NAMES = PATHS.map(({ name }) => name);

/** What is only tried: it has another way, or nothing depends on it. */
const TRIED: readonly (readonly [string, (seen: SeenRequest) => boolean])[] = [
  ["HEAD of a blob", ({ method, path }) => method === "HEAD" && path.includes("/blobs/")],
  ["HEAD of a manifest", ({ method, path }) => method === "HEAD" && path.includes("/manifests/")],
  ["every HEAD", ({ method }) => method === "HEAD"],
  [
    "a range, at the registry",
    ({ method, headers, origin }) => method === "GET" && headers.has("range") && origin === "registry",
  ],
  ["a range, at the storage", ({ headers, origin }) => headers.has("range") && origin === "storage"],
  ["a condition", ({ headers }) => headers.has("if-none-match") || headers.has("if-match")],
  [
    "a manifest under its digest, as the probe of strictness puts it",
    ({ method, path }) => method === "PUT" && path.includes("/manifests/sha256:"),
  ],
  ["DELETE", ({ method }) => method === "DELETE"],
  ["a page of the tag list by its size", ({ path }) => path.includes("/tags/list?n=")],
  ["the root's PUT", ({ method, path }) => method === "PUT" && path.includes("/manifests/nixcache-index")],
];

const WAYS: readonly (readonly [string, DoubleOptions])[] = [
  ["a registry that refuses manifests with missing blobs", DISTRIBUTION],
  ["one that takes them", {}],
];

/** Requests of one first publish and one first read at most, whatever is answered: tries are bounded. */
const MAX_REQUESTS = 400;

function answering(when: (seen: SeenRequest) => boolean, odd: OddAnswer) {
  return (seen: SeenRequest) => (when(seen) ? odd(seen) : undefined);
}

/** What goes wrong with one answer; undefined when nothing does. */
function faultWith(
  options: DoubleOptions,
  when: (seen: SeenRequest) => boolean,
  [name, odd]: (typeof ODD_ANSWERS)[number],
): Promise<string | undefined> {
  const mayFail = NETWORK_OR_LIMIT.has(name);
  return withDouble(async (double) => {
    double.faults.push(answering(when, odd));
    try {
      const { result } = await publishOver(double);
      if (result.leftOut.length > 0) return mayFail ? undefined : `left out: ${result.leftOut[0]?.reason}`;
      if (!Bun.deepEquals(await readOver(double), NAMES)) return "the cache is not read right";
    } catch (error) {
      const isClear = error instanceof NixcacheError && error.code === "unreachable" && error.hint !== "";
      if (!mayFail || !isClear) return String(error);
    }
    if (double.requests.length > MAX_REQUESTS) return `${double.requests.length} requests`;
    // Nothing was half-written: the same is read where every answer is right.
    double.faults.length = 0;
    const there = await readOver(double);
    const isRight = Bun.deepEquals(there, NAMES) || (mayFail && there.length === 0);
    return isRight ? undefined : "the cache is not written right";
  }, options);
}

async function faultsOf(fault: (answer: (typeof ODD_ANSWERS)[number]) => Promise<string | undefined>) {
  const faults: string[] = [];
  for (const answer of ODD_ANSWERS) {
    const found = await fault(answer);
    if (found !== undefined) faults.push(`${answer[0]}: ${found}`);
  }
  return faults;
}

describe.each(WAYS)("%s", (_, options) => {
  test.each(TRIED)("%s may be answered in any way", async (_, when) => {
    expect(await faultsOf((answer) => faultWith(options, when, answer))).toEqual([]);
  });
});

const DAY = 24 * 3_600_000;

/** What gc asks, and how it may end: a deletion is only tried, what is read must be readable. */
describe("gc deletes nothing that is alive", () => {
  test.each<[string, (seen: SeenRequest) => boolean, boolean]>([
    ["DELETE", ({ method }) => method === "DELETE", false],
    ["HEAD", ({ method }) => method === "HEAD", false],
    ["a condition", ({ headers }) => headers.has("if-none-match"), false],
    ["the root", ({ path }) => path.includes("/manifests/nixcache-index"), false],
    [
      "the GET of a dead tag",
      ({ method, path }) => method === "GET" && path.includes("/manifests/dead-"),
      true,
    ],
  ])("and goes on, whatever is answered to %s", async (_, when, isNeeded) => {
    const faults = await faultsOf(([name, odd]) =>
      withDouble(async (double) => {
        const host = new TestHost();
        using machine = party(openAt(double, host), host);
        const old = await commitNames(machine, ["a"]);
        host.time += 2 * DAY;
        const live = await commitNames(machine, ["b"]);
        await endGenerations(machine, [old]);
        host.time += 2 * DAY;
        const digest = double.tags.get(segmentTag(live)) ?? "";
        // A header may name what is alive.
        const stated = { "docker-content-digest": digest };
        double.faults.push((seen) => {
          if (!when(seen)) return undefined;
          return name === "200 and another digest" ? new Response(null, { headers: stated }) : odd(seen);
        });
        const before = double.requests.length;
        try {
          await sweep(machine);
        } catch (error) {
          const isClear = error instanceof NixcacheError && ["unreachable", "denied"].includes(error.code);
          const mayFail = NETWORK_OR_LIMIT.has(name) || isNeeded;
          if (!isClear || !mayFail) return String(error);
        }
        if (double.requests.length - before > MAX_REQUESTS) return "too many requests";
        if (double.tags.get(segmentTag(live)) !== digest) return "a tag that is alive is gone";
        return double.manifests.has(digest) ? undefined : "a manifest that is alive is gone";
      }, DISTRIBUTION),
    );
    expect(faults).toEqual([]);
  });

  test("where HEAD says 404 to everything, holds of live generations stay", () =>
    withDouble(async (double) => {
      const host = new TestHost();
      using machine = party(openAt(double, host), host);
      const live = await commitNames(machine, ["a"]);
      const hold = holdTag(live, 0);
      double.tags.set(hold, double.tags.get(segmentTag(live)) ?? "");
      host.time += 30 * DAY;
      double.faults.push(({ method }) =>
        method === "HEAD" ? new Response(null, { status: 404 }) : undefined,
      );
      await sweep(machine);
      expect([...double.tags.keys()]).toContain(hold);
      expect([...double.tags.keys()]).toContain(segmentTag(live));
    }, DISTRIBUTION));
});
