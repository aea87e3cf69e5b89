/** Outages of a registry as its adapter meets them, and how often serve asks before a NAR counts as absent. */
import { expect, test } from "bun:test";
import { digestOf } from "../../../src/oci/digest.ts";
import { BRISK } from "../../../src/oci/retry.ts";
import { watchRegistry } from "../../../src/serve/registry-watch.ts";
import { LeftAlone } from "../../../src/upstream/failure.ts";
import { noise } from "../../support/publish.ts";
import {
  type DoubleOptions,
  type Fault,
  type RegistryDouble,
  withDouble,
} from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "../oci/network.ts";

const CONTENT = noise("blob", 10_000);
const DIGEST = digestOf(CONTENT);

/** A watched store on a double that has one blob; a client that asks is a call of `read`. */
async function withWatch(
  body: (world: { double: RegistryDouble; read: () => Promise<Uint8Array>; told: string[] }) => Promise<void>,
  options: DoubleOptions = {},
): Promise<void> {
  await withDouble(async (double) => {
    double.blobs.set(DIGEST, CONTENT);
    const network = testNetwork();
    const told: string[] = [];
    const host = { now: network.now, random: network.random, sleep: () => new Promise<void>(() => {}) };
    const store = watchRegistry(openDouble(double, { network, policy: BRISK }), {
      host,
      onError: (message) => told.push(message),
    });
    const read = async () => {
      const body = await store.readBlob(DIGEST, { size: CONTENT.length });
      return new Uint8Array(await new Response(body).arrayBuffer());
    };
    await body({ double, read, told });
  }, options);
}

const unavailable = () => new Response("busy", { status: 503 });

test.each<[string, Fault, number]>([
  ["the token endpoint", ({ path }) => (path.startsWith("/token") ? unavailable() : undefined), 2],
  ["the registry", ({ origin }) => (origin === "registry" ? unavailable() : undefined), 1],
  ["the storage host", ({ origin }) => (origin === "storage" ? unavailable() : undefined), 3],
])("200 NARs while %s is down alone: a handful of tries", async (_, fault, each) => {
  await withWatch(async ({ double, read, told }) => {
    double.faults.push(fault);
    for (let i = 0; i < 200; i++) await expect(read()).rejects.toThrow();
    // An answer that says "not now" may be about one blob: three of them, three tries each. Then five questions whether
    // it is back, each for one byte and then, as a registry may fail at ranges alone, for the whole.
    expect(double.requests.length).toBeLessThanOrEqual((3 * BRISK.attempts + 5 * 2) * each + 2);
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(told).toHaveLength(1);
  });
});

test("a redirect that leads nowhere is as good as no answer, and is asked for once", async () => {
  await withWatch(async ({ double, read }) => {
    double.faults.push(({ path }) =>
      path.includes("/blobs/")
        ? new Response(null, { status: 307, headers: { location: "http://127.0.0.1:1/x" } })
        : undefined,
    );
    for (let i = 0; i < 50; i++) await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(double.count("GET", /blobs/)).toBeLessThanOrEqual(2 * (1 + 5));
    double.faults.length = 0;
  });
});

test("a registry that is back is used by the first who asks", async () => {
  await withWatch(async ({ double, read, told }) => {
    double.faults.push(() => unavailable());
    for (let i = 0; i < 4; i++) await expect(read()).rejects.toThrow();
    double.faults.length = 0;
    expect(await read()).toEqual(CONTENT);
    expect(told.at(-1)).toEndWith("answers again");
  });
});
