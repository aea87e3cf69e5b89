/** Cross-repository mounts, against a double that behaves as GHCR: what is asked for, and with which token. */
import { describe, expect, test } from "bun:test";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  DOUBLE_REPOSITORY,
  failure,
  type RegistryDouble,
  withDouble,
} from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const PASSWORD = "ghp_secret";
const FROM = "other/repo/nix-cache";
const DIGEST = digestOf("the blob");
const MOUNT = /\/blobs\/uploads\/\?mount=/;

function openMounting(double: RegistryDouble) {
  const network = testNetwork();
  return {
    network,
    store: openDouble(double, { password: PASSWORD, access: "write", mountFrom: FROM, network }),
  };
}

const answering = (answer: () => Response) => (double: RegistryDouble) => {
  double.faults.push(({ method, path }) => (method === "POST" && MOUNT.test(path) ? answer() : undefined));
};
const created = answering(() => new Response(null, { status: 201, headers: { location: "/v2/x" } }));

describe("a mount", () => {
  test("names the blob and the repository that has it, with a token that is good for both", () =>
    withDouble(async (double) => {
      created(double);
      const { store } = openMounting(double);
      await store.statBlob(DIGEST);
      expect(await store.mountBlob?.(DIGEST)).toBe(true);
      const posts = double.requests.filter(({ method }) => method === "POST");
      const query = new URL(posts.at(-1)?.path ?? "", "http://x").searchParams;
      expect(Object.fromEntries(query)).toEqual({ mount: DIGEST, from: FROM });
      const tokens = double.requests.filter(({ path }) => path.startsWith("/token"));
      expect(tokens.map(({ path }) => new URL(path, "http://x").searchParams.getAll("scope"))).toEqual([
        [`repository:${DOUBLE_REPOSITORY}:pull,push`],
        [`repository:${DOUBLE_REPOSITORY}:pull,push`, `repository:${FROM}:pull`],
      ]);
    }));

  test.each<[string, (double: RegistryDouble) => void]>([
    ["an upload session instead", () => {}],
    ["a refusal", answering(() => failure(403, "DENIED", "no"))],
    ["an error", answering(() => failure(400, "BLOB_UNKNOWN", "no"))],
    ["absence", answering(() => failure(404, "NAME_UNKNOWN", "no"))],
    ["a bad gateway", answering(() => new Response("", { status: 502 }))],
    [
      "a token that is not given",
      (double) => {
        double.faults.push(({ path }) =>
          path.includes(encodeURIComponent(FROM)) ? failure(403, "DENIED", "denied") : undefined,
        );
      },
    ],
  ])("answered by %s is no mount, which is soon known", async (_, prepare) => {
    await withDouble(async (double) => {
      prepare(double);
      const { store, network } = openMounting(double);
      expect(await store.mountBlob?.(DIGEST)).toBe(false);
      expect(network.sleeps.length).toBeLessThan(2);
      // And says nothing about uploads.
      const content = new TextEncoder().encode("the blob");
      await store.writeBlob({ digest: DIGEST, size: content.length, content });
      expect(double.blobs.get(DIGEST)).toEqual(content);
    });
  });

  test("that is interrupted is an interrupt", () =>
    withDouble(async (double) => {
      created(double);
      const { store } = openMounting(double);
      await expect(store.mountBlob?.(DIGEST, { signal: AbortSignal.abort() })).rejects.toMatchObject({
        code: "interrupted",
      });
    }));
});
