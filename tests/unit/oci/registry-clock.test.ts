/** What time it is at a registry, by answers that are had anyway. */
import { expect, test } from "bun:test";
import { digestOf } from "../../../src/oci/digest.ts";
import type { DoubleOptions } from "../../support/registry-double.ts";
import { type Fault, withDouble } from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const HOUR = 3_600_000;
const DIGEST = digestOf("the blob");
const NOW = testNetwork().now();

/** By how much the clock of a double is ahead after one request, in seconds, and how many it got. */
async function aheadAfter(options: DoubleOptions, fault?: Fault) {
  return withDouble(async (double) => {
    if (fault) double.faults.push(fault);
    const store = openDouble(double);
    expect(store.clockAheadMs?.()).toBeUndefined();
    await store.listTags().catch(() => {});
    const requests = double.requests.length;
    const ahead = store.clockAheadMs?.();
    expect(double.requests.length).toBe(requests);
    return { ahead: ahead && Math.floor(ahead / 1000), requests };
  }, options);
}

test.each<[string, number | string, number | undefined]>([
  ["three hours ahead", NOW + 3 * HOUR, 3 * 3600],
  ["three hours behind", NOW - 3 * HOUR, -3 * 3600],
  ["in another form, ahead", "Thursday, 01-Jan-26 00:01:00 GMT", 60],
  ["no date", "soon", undefined],
  ["empty", "", undefined],
  ["of a machine that has just started without a battery", 0, undefined],
  ["the last that a date can be", "Fri, 31 Dec 9999 23:59:59 GMT", undefined],
])("a Date that is %s", async (_, date, expected) => {
  expect((await aheadAfter({ date: () => date })).ahead).toBe(expected);
});

test("it costs no request", async () => {
  const { requests } = await aheadAfter({ date: () => NOW });
  // One without a token, one for the token, one with it.
  expect(requests).toBe(3);
});

test("a refusal tells it too", async () => {
  const refuse: Fault = ({ path }) =>
    path.includes("/tags/") ? new Response("", { status: 403, headers: { date: at(HOUR) } }) : undefined;
  expect((await aheadAfter({}, refuse)).ahead).toBe(3600);
});

test("the answer of a cache on the way, which is old, does not", async () => {
  const cached: Fault = ({ path }) =>
    path.includes("/tags/")
      ? Response.json({ name: "x", tags: [] }, { headers: { date: at(-HOUR), age: "3600" } })
      : undefined;
  expect((await aheadAfter({ date: () => NOW }, cached)).ahead).toBeUndefined();
});

test("nor does the storage that a blob is redirected to", () =>
  withDouble(
    async (double) => {
      double.blobs.set(DIGEST, new TextEncoder().encode("the blob"));
      double.faults.push(({ origin }) =>
        origin === "storage" ? new Response("the blob", { headers: { date: at(5 * HOUR) } }) : undefined,
      );
      const store = openDouble(double);
      expect(await new Response(await store.readBlob(DIGEST)).text()).toBe("the blob");
      expect(Math.floor((store.clockAheadMs?.() ?? 0) / 1000)).toBe(60);
    },
    { date: () => NOW + 60_000 },
  ));

function at(ms: number): string {
  return new Date(NOW + ms).toUTCString();
}
