/** Signing in with tokens in the place of passwords, and with credentials that change while a server runs. */
import { describe, expect, test } from "bun:test";
import type { NixcacheError } from "../../../src/errors.ts";
import type { Credentials } from "../../../src/oci/credentials.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  DOUBLE_REPOSITORY,
  failure,
  type RegistryDouble,
  withDouble,
} from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const BLOB = new TextEncoder().encode("the blob");
const DIGEST = digestOf(BLOB);
const IDENTITY: Credentials = { kind: "identity-token", token: "identity.secret+/=" };
const REGISTRY: Credentials = { kind: "registry-token", token: "registry.secret" };

const rejection = (promise: Promise<unknown>): Promise<NixcacheError> =>
  promise.then(
    () => Promise.reject(new Error("it went well")),
    (error) => error,
  );

/** As Azure's registry answers: tokens by POST alone, for an identity token that is good. */
function takesIdentityTokens(double: RegistryDouble, good: string): URLSearchParams[] {
  const forms: URLSearchParams[] = [];
  double.blobs.set(DIGEST, BLOB);
  double.faults.push(async ({ method, path, headers }, raw) => {
    if (path.startsWith("/token")) {
      if (method !== "POST") return failure(401, "UNAUTHORIZED", "authentication required");
      const form = new URLSearchParams(await raw.text());
      forms.push(form);
      if (form.get("refresh_token") !== good)
        return Response.json({ error: "invalid_grant" }, { status: 400 });
      return Response.json({ access_token: "access", expires_in: 300 });
    }
    if (headers.get("authorization") !== "Bearer access") return undefined;
    return new Response(null, { headers: { "content-length": "8" } });
  });
  return forms;
}

describe("an identity token", () => {
  test("is exchanged at the realm, by POST, and goes nowhere else", () =>
    withDouble(async (double) => {
      const forms = takesIdentityTokens(double, "identity.secret+/=");
      const store = openDouble(double, { credentials: async () => IDENTITY });
      expect(await store.statBlob(DIGEST)).toBe(8);
      expect(forms.map((form) => Object.fromEntries(form))).toEqual([
        {
          grant_type: "refresh_token",
          refresh_token: "identity.secret+/=",
          client_id: "nixcache",
          service: "ghcr.io",
          scope: `repository:${DOUBLE_REPOSITORY}:pull`,
        },
      ]);
      for (const { path, headers } of double.requests) {
        expect(path).not.toContain("identity");
        expect(headers.get("authorization") ?? "").not.toContain("identity");
      }
    }));

  test("that has ended is a refusal without the token in it", () =>
    withDouble(async (double) => {
      takesIdentityTokens(double, "another");
      const error = await rejection(
        openDouble(double, { credentials: async () => IDENTITY }).statBlob(DIGEST),
      );
      expect(error.code).toBe("denied");
      expect(error.message).toContain("with the credentials found (the token endpoint answered 400");
      expect(JSON.stringify([error.message, error.hint])).not.toContain("identity.secret");
    }));

  test("that has ended does not keep a public cache from being read", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      double.faults.push(({ method, path }) =>
        method === "POST" && path.startsWith("/token") ? new Response(null, { status: 405 }) : undefined,
      );
      const store = openDouble(double, { credentials: async () => IDENTITY });
      expect(await store.statBlob(DIGEST)).toBe(8);
    }));

  test("is of no use where a password is wanted", () =>
    withDouble(async (double) => {
      double.faults.push(() => failure(401, "UNAUTHORIZED", "x", { "www-authenticate": 'Basic realm="r"' }));
      const error = await rejection(
        openDouble(double, { credentials: async () => IDENTITY }).statBlob(DIGEST),
      );
      expect(error).toMatchObject({
        code: "denied",
        message: expect.stringContaining("the registry wants a user name and a password"),
        hint: expect.stringContaining("docker login"),
      });
    }));
});

describe("a registry token", () => {
  const takesRegistryToken = (double: RegistryDouble) => {
    double.faults.push(({ headers }) =>
      headers.get("authorization") === "Bearer registry.secret"
        ? new Response(null, { headers: { "content-length": "99" } })
        : undefined,
    );
  };

  test("is sent as it is, and nobody is asked for another", () =>
    withDouble(async (double) => {
      takesRegistryToken(double);
      const store = openDouble(double, { credentials: async () => REGISTRY });
      expect(await store.statBlob(DIGEST)).toBe(99);
      expect(double.count("GET", /^\/token/)).toBe(0);
    }));

  test("that is refused is a refusal where one is needed", () =>
    withDouble(
      async (double) => {
        const store = openDouble(double, { credentials: async () => REGISTRY });
        const error = await rejection(store.listTags());
        expect(error).toMatchObject({ code: "denied", hint: expect.stringContaining("docker login") });
        expect(JSON.stringify([error.message, error.hint])).not.toContain("registry.secret");
      },
      { visibility: "private" },
    ));
});

describe("credentials that change", () => {
  const password = (text: string): Credentials => ({ kind: "password", username: "AWS", password: text });

  /** As Amazon's registry: Basic, with a password that ends. */
  const takesPassword = (double: RegistryDouble, good: () => string) => {
    double.faults.push(({ headers }) =>
      headers.get("authorization") === `Basic ${btoa(`AWS:${good()}`)}`
        ? new Response(null, { headers: { "content-length": "8" } })
        : failure(401, "UNAUTHORIZED", "your token has expired", { "www-authenticate": 'Basic realm="r"' }),
    );
  };

  test("are looked up again when they are refused, once a minute at most", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      let good = "first";
      let given = "first";
      let looked = 0;
      takesPassword(double, () => good);
      const credentials = async () => {
        looked++;
        return password(given);
      };
      const store = openDouble(double, { credentials, network });
      await store.statBlob(DIGEST);
      good = "second";
      // Just looked up: whoever gives them gives the same.
      expect(await rejection(store.statBlob(DIGEST))).toMatchObject({ code: "denied" });
      expect(looked).toBe(1);
      network.advance(61_000);
      // Looked up again, and the same as before.
      expect(await rejection(store.statBlob(DIGEST))).toMatchObject({ code: "denied" });
      expect(looked).toBe(2);
      given = "second";
      network.advance(61_000);
      expect(await store.statBlob(DIGEST)).toBe(8);
      expect(await store.statBlob(DIGEST)).toBe(8);
      expect(looked).toBe(3);
    }));

  test("and those that could not be found before are found later", () =>
    withDouble(
      async (double) => {
        const network = testNetwork();
        let found: Credentials | undefined;
        const store = openDouble(double, { credentials: async () => found, network });
        expect(await rejection(store.listTags())).toMatchObject({ code: "denied" });
        found = { kind: "password", username: "somebody", password: "ghp_secret" };
        network.advance(61_000);
        expect(await store.listTags()).toEqual([]);
      },
      { visibility: "private" },
    ));
});
