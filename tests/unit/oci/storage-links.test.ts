/** The link to a storage host is used for all ranges of a blob while it is good; then the registry is asked again. */
import { describe, expect, test } from "bun:test";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Store } from "../../../src/oci/store.ts";
import { bytesOf, randomBytes } from "../../contract/oci/helpers.ts";
import { type RegistryDouble, ranged, withDouble } from "../../support/registry-double.ts";
import { openDouble } from "./network.ts";

const BYTES = randomBytes(1000);
const DIGEST = digestOf(BYTES);

/** Reads a range and checks it. */
async function read(store: Store, offset: number): Promise<void> {
  const stream = await store.readBlob(DIGEST, { range: { offset, length: 10 } });
  expect(await bytesOf(stream)).toEqual(BYTES.slice(offset, offset + 10));
}

/** Requests for the blob at the registry that it answered with a link, and at the storage host. */
function asked({ requests }: RegistryDouble): { registry: number; storage: number } {
  const blobs = requests.filter(({ method, path }) => method === "GET" && /sha256:/.test(path));
  const authorized = blobs.filter(
    ({ origin, headers }) => origin === "registry" && headers.has("authorization"),
  );
  const storage = blobs.filter(({ origin }) => origin === "storage");
  // The registry's token is for the registry alone (rule 7).
  expect(storage.some(({ headers }) => headers.has("authorization"))).toBe(false);
  return { registry: authorized.length, storage: storage.length };
}

describe("a link", () => {
  test("is good for further ranges, also at once: the registry is asked once", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const store = openDouble(double);
      await read(store, 0);
      await Promise.all([10, 20, 30, 40].map((offset) => read(store, offset)));
      expect(asked(double)).toEqual({ registry: 1, storage: 5 });
    }));

  test("that is over is asked for again, by each reader that finds out", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const store = openDouble(double);
      await read(store, 0);
      double.expireLinks();
      await read(store, 10);
      await read(store, 20);
      expect(asked(double)).toEqual({ registry: 2, storage: 4 });
    }));

  test.each([401, 403, 404, 410, 416, 429, 500, 503])(
    "that answers %i: the registry gives another",
    (status) =>
      withDouble(async (double) => {
        double.blobs.set(DIGEST, BYTES);
        const store = openDouble(double);
        await read(store, 0);
        let left = 1;
        double.faults.push(({ origin }) =>
          origin === "storage" && left-- > 0 ? new Response("no", { status }) : undefined,
        );
        await read(store, 10);
        expect(asked(double)).toEqual({ registry: 2, storage: 3 });
      }),
  );

  test("does not say whether the blob is there: the registry does (rule 1)", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const store = openDouble(double);
      await read(store, 0);
      double.blobs.delete(DIGEST);
      expect(await store.readBlob(DIGEST, { range: { offset: 0, length: 10 } })).toBeUndefined();
    }));

  test("that has failed is not used again, also where the registry then gives the blob itself", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const store = openDouble(double);
      await read(store, 0);
      double.expireLinks();
      double.faults.push(({ origin, method, path, headers }) =>
        origin === "registry" && method === "GET" && /sha256:/.test(path) && headers.has("authorization")
          ? ranged(BYTES, headers.get("range"))
          : undefined,
      );
      await read(store, 10);
      await read(store, 20);
      expect(asked(double)).toEqual({ registry: 3, storage: 2 });
    }));

  test("to a host that is gone: the registry names another", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BYTES);
      const gone = Bun.serve({ hostname: "127.0.0.1", port: 0, fetch: () => new Response(BYTES) });
      const location = `http://127.0.0.1:${gone.port}/blob`;
      let moved = false;
      double.faults.push(({ origin, method, path, headers }) =>
        !moved &&
        origin === "registry" &&
        method === "GET" &&
        /sha256:/.test(path) &&
        headers.has("authorization")
          ? new Response(null, { status: 307, headers: { location } })
          : undefined,
      );
      const store = openDouble(double);
      await read(store, 0);
      moved = true;
      await gone.stop(true);
      await read(store, 10);
      expect(asked(double).storage).toBe(1);
    }));
});
