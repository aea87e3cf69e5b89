/** Signing in, against a double that behaves as GHCR. */
import { describe, expect, test } from "bun:test";
import type { NixcacheError } from "../../../src/errors.ts";
import { deniedError } from "../../../src/oci/denied.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import type { Network } from "../../../src/oci/network.ts";
import { parseReference } from "../../../src/oci/reference.ts";
import { openRegistry } from "../../../src/oci/registry.ts";
import type { Store } from "../../../src/oci/store.ts";
import { bytesOf, randomBytes, writeBlob, writeTag } from "../../contract/oci/helpers.ts";
import {
  DOUBLE_REPOSITORY,
  failure,
  faultTimes,
  type RegistryDouble,
  withDouble,
} from "../../support/registry-double.ts";
import { openDouble, testNetwork } from "./network.ts";

const PASSWORD = "ghp_secret";
const BLOB = new TextEncoder().encode("the blob");
const DIGEST = digestOf(BLOB);

const tokenRequests = (double: RegistryDouble) => double.count("GET", /^\/token/);
const rejection = (promise: Promise<unknown>): Promise<NixcacheError> =>
  promise.then(
    () => Promise.reject(new Error("it went well")),
    (error) => error,
  );

describe("tokens", () => {
  test("a public cache is read without credentials, with one token for many requests", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double);
      await Promise.all(Array.from({ length: 30 }, () => store.statBlob(DIGEST)));
      expect(tokenRequests(double)).toBe(1);
      expect(await bytesOf(await store.readBlob(DIGEST))).toEqual(BLOB);
      expect(tokenRequests(double)).toBe(1);
      const request = double.requests.find(({ path }) => path.startsWith("/token"));
      expect(request?.headers.has("authorization")).toBe(false);
      const scope = encodeURIComponent(`repository:${DOUBLE_REPOSITORY}:pull`);
      expect(request?.path).toBe(`/token?service=ghcr.io&scope=${scope}`);
    }));

  test("a token that ends without notice is renewed, once for all who wait", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double);
      await store.statBlob(DIGEST);
      double.expireTokens();
      const sizes = await Promise.all(Array.from({ length: 30 }, () => store.statBlob(DIGEST)));
      expect(new Set(sizes)).toEqual(new Set([BLOB.length]));
      expect(tokenRequests(double)).toBe(2);
    }));

  test("who hears late that the old token has ended takes the new one that others got", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double);
      await store.statBlob(DIGEST);
      double.expireTokens();
      const arrived = Promise.withResolvers<void>();
      const renewed = Promise.withResolvers<void>();
      let once = true;
      double.faults.push(async ({ method }) => {
        if (method !== "HEAD" || !once) return undefined;
        once = false;
        arrived.resolve();
        await renewed.promise;
        return failure(401, "UNAUTHORIZED", "x", {
          "www-authenticate": `Bearer realm="http://${double.host}/token",service="ghcr.io"`,
        });
      });
      const late = store.statBlob(DIGEST);
      await arrived.promise;
      await store.statBlob(DIGEST);
      renewed.resolve();
      expect(await late).toBe(BLOB.length);
      expect(tokenRequests(double)).toBe(2);
    }));

  test("an upload goes on when its token ends between POST and PUT", () =>
    withDouble(async (double) => {
      let once = true;
      double.faults.push(({ method }) => {
        if (method === "PUT" && once) {
          once = false;
          double.expireTokens();
        }
        return undefined;
      });
      const store = openDouble(double, { password: PASSWORD });
      const bytes = randomBytes(100_000);
      const digest = await writeBlob(store, bytes);
      expect(double.blobs.get(digest)).toEqual(bytes);
      expect(double.count("PUT", /./)).toBe(2);
      expect(double.count("POST", /./)).toBe(2);
    }));

  test("the lifetime is 60 s where none is stated, and the stated one otherwise", async () => {
    for (const [expiresIn, lifetime] of [
      [undefined, 60],
      [300, 300],
    ] as const) {
      const options = expiresIn === undefined ? {} : { expiresIn };
      await withDouble(async (double) => {
        double.blobs.set(DIGEST, BLOB);
        const network = testNetwork();
        const store = openDouble(double, { network });
        await store.statBlob(DIGEST);
        network.advance((lifetime - 15) * 1000);
        await store.statBlob(DIGEST);
        expect([tokenRequests(double), double.count("HEAD", /./)]).toEqual([1, 3]);
        network.advance(10_000);
        await store.statBlob(DIGEST);
        // Renewed ahead of its end, without being refused first.
        expect([tokenRequests(double), double.count("HEAD", /./)]).toEqual([2, 4]);
      }, options);
    }
  });

  test("a registry that refuses its own new token is denied, after one renewal", () =>
    withDouble(async (double) => {
      double.faults.push(({ method, path }) =>
        method === "GET" && path.includes("/manifests/")
          ? failure(401, "UNAUTHORIZED", "no", {
              "www-authenticate": `Bearer realm="http://${double.host}/token",service="ghcr.io"`,
            })
          : undefined,
      );
      const error = await rejection(openDouble(double, { password: PASSWORD }).readManifest("t"));
      expect(error.code).toBe("denied");
      expect(double.count("GET", /manifests/)).toBe(2);
      expect(tokenRequests(double)).toBe(1);
    }));

  test("the token endpoint's rate limits and bad days are sat out", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const network = testNetwork();
      const limited = () => failure(429, "TOOMANYREQUESTS", "retry-after: 3s, allowed: 44000/minute");
      double.faults.push(faultTimes(1, "GET", /^\/token/, limited));
      double.faults.push(
        faultTimes(1, "GET", /^\/token/, () => new Response("Bad Gateway", { status: 502 })),
      );
      const store = openDouble(double, { network });
      expect(await Promise.all([store.statBlob(DIGEST), store.statBlob(DIGEST)])).toEqual([8, 8]);
      expect(network.sleeps).toContain(3000);
    }));

  test.each<[string, () => Response]>([
    ["no JSON", () => new Response("<html>")],
    ["no token", () => Response.json({ expires_in: 5 })],
    ["an empty token", () => Response.json({ token: "" })],
    ["a token that would break the header", () => Response.json({ token: "a\r\nx-evil: 1" })],
    ["a redirect", () => Response.redirect("http://127.0.0.1:1/", 302)],
    ["more than a MiB", () => new Response("x".repeat(1_100_000))],
  ])("%s instead of a token is a protocol error", (_, answer) =>
    withDouble(async (double) => {
      double.faults.push(faultTimes(9, "GET", /^\/token/, answer));
      await expect(openDouble(double).statBlob(DIGEST)).rejects.toMatchObject({ code: "protocol" });
    }),
  );

  test("access_token counts as well", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double);
      double.faults.push(async ({ path, headers }) => {
        if (path.startsWith("/token")) return Response.json({ access_token: "abc" });
        if (headers.get("authorization") !== "Bearer abc") return undefined;
        return new Response(null, { headers: { "content-length": "77" } });
      });
      expect(await store.statBlob(DIGEST)).toBe(77);
    }));
});

describe("secrets stay put", () => {
  test("a blob redirect carries no Authorization, and the range", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double, { password: PASSWORD });
      const range = { offset: 4, length: 3 };
      expect(await bytesOf(await store.readBlob(DIGEST, { range }))).toEqual(BLOB.slice(4, 7));
      const storage = double.requests.filter(({ origin }) => origin === "storage");
      expect(storage.map(({ headers }) => [headers.has("authorization"), headers.get("range")])).toEqual([
        [false, "bytes=4-6"],
      ]);
    }));

  test("an upload that is sent to another origin carries none", () =>
    withDouble(async (double) => {
      double.faults.push(({ method, path }) =>
        method === "POST" && path.endsWith("/uploads/")
          ? new Response(null, { status: 202, headers: { location: `http://${double.storageHost}/up?x=1` } })
          : undefined,
      );
      double.faults.push(({ origin, method }) =>
        origin === "storage" && method === "PUT" ? new Response(null, { status: 201 }) : undefined,
      );
      await writeBlob(openDouble(double, { password: PASSWORD }), BLOB);
      const put = double.requests.find(({ method }) => method === "PUT");
      expect(put?.path).toBe(`/up?x=1&digest=${encodeURIComponent(DIGEST)}`);
      expect(put?.headers.has("authorization")).toBe(false);
    }));

  test("no realm over plain HTTP for a registry over HTTPS, nor one that is no URL", async () => {
    const network = testNetwork();
    const seen: string[] = [];
    for (const realm of ["http://ghcr.io/token", "http://127.0.0.1/token", "ftp://x", "", "token"]) {
      const fetchDouble = async (url: string) => {
        seen.push(url);
        return failure(401, "UNAUTHORIZED", "x", { "www-authenticate": `Bearer realm="${realm}"` });
      };
      const store = openHttps({ ...network, fetch: fetchDouble });
      const error = await rejection(store.statBlob(DIGEST));
      expect(error).toMatchObject({
        code: "protocol",
        message: expect.stringContaining("expected an https:// URL"),
      });
    }
    expect(seen.every((url) => url.startsWith("https://ghcr.io/v2/"))).toBe(true);
  });

  test("no upload and no redirect from HTTPS to plain HTTP", async () => {
    const network = testNetwork();
    const answer = async () =>
      new Response(null, { status: 307, headers: { location: "http://ghcr.io/elsewhere" } });
    const store = openHttps({ ...network, fetch: answer });
    await expect(store.readBlob(DIGEST)).rejects.toMatchObject({
      code: "protocol",
      message: expect.stringContaining("expected https:"),
    });
  });

  test("errors hold neither password nor token nor the link's signature", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      double.faults.push(({ origin }) =>
        origin === "storage" ? new Response("no", { status: 403 }) : undefined,
      );
      const error = await rejection(openDouble(double, { password: PASSWORD }).readBlob(DIGEST));
      const text = JSON.stringify([error.message, error.hint, String(error.cause)]);
      expect(text).toContain(double.storageHost);
      for (const secret of [PASSWORD, "opaque-", "sig=", btoa(`somebody:${PASSWORD}`)])
        expect(text).not.toContain(secret);
    }));

  test("what a registry says comes without control characters", () =>
    withDouble(async (double) => {
      double.faults.push(() => failure(418, "X", `a\u001b[31m\r\nb\u202e${"c".repeat(1000)}`));
      const error = await rejection(openDouble(double).listTags());
      expect(error.message).toMatch(/^[\x20-\x7e…]*$/);
      expect(error.message.length).toBeLessThan(500);
    }));
});

describe("refusals", () => {
  const ghcr = (double: RegistryDouble, password?: string, access?: "read" | "write"): Store => {
    // As ghcr.io in name, so that the hints are those of GHCR.
    const network = testNetwork();
    const fetchDouble = (url: string, init: RequestInit) =>
      fetch(url.replace("https://ghcr.io", `http://${double.host}`), init);
    double.faults.push(async ({ path, headers }) => {
      if (path.startsWith("/token") || headers.has("authorization")) return undefined;
      return failure(401, "UNAUTHORIZED", "x", {
        "www-authenticate": 'Bearer realm="https://ghcr.io/token",service="ghcr.io"',
      });
    });
    return openHttps({ ...network, fetch: fetchDouble }, password, access);
  };

  test("a private package, and nobody signed in", () =>
    withDouble(
      async (double) => {
        const store = ghcr(double);
        for (const call of [
          () => store.listTags(),
          () => store.readManifest("t"),
          () => store.statBlob(DIGEST),
        ]) {
          const error = await rejection(call());
          expect(error.code).toBe("denied");
          expect(error.message).toContain(
            "not allowed to read it without credentials (the token endpoint answered 401",
          );
          expect(error.hint).toContain("private, or nothing was published to it yet");
          expect(error.hint).toContain("GITHUB_TOKEN");
          expect(error.hint).toContain("packages: read");
        }
      },
      { visibility: "private" },
    ));

  test("writing, and nobody signed in", () =>
    withDouble(async (double) => {
      const error = await rejection(writeBlob(ghcr(double), BLOB));
      expect(error).toMatchObject({ code: "denied", hint: expect.stringContaining("packages: write") });
    }));

  test("a wrong token: a public cache is read all the same, writing and private ones are denied", async () => {
    await withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = ghcr(double, "expired");
      expect(await store.statBlob(DIGEST)).toBe(BLOB.length);
      const error = await rejection(writeBlob(store, BLOB));
      expect(error).toMatchObject({ code: "denied", hint: expect.stringContaining("expired or wrong") });
    });
    await withDouble(
      async (double) => {
        const error = await rejection(ghcr(double, "expired").listTags());
        expect(error).toMatchObject({
          code: "denied",
          message: expect.stringContaining("with the credentials found"),
        });
      },
      { visibility: "private" },
    );
  });

  test("a token that is valid but may not write", () =>
    withDouble(async (double) => {
      double.faults.push(({ method, headers }) =>
        method === "POST" && headers.has("authorization")
          ? failure(403, "DENIED", "permission_denied: write_package")
          : undefined,
      );
      const error = await rejection(writeBlob(ghcr(double, PASSWORD), BLOB));
      expect(error.message).toContain(
        "not allowed to write to it with the credentials found (it answered 403: DENIED permission_denied: write_package)",
      );
      expect(error.hint).toContain("Manage Actions access");
    }));

  test("a package that does not exist yet is an error for who reads, and empty for who is about to write", () =>
    withDouble(
      async (double) => {
        expect(await rejection(ghcr(double, PASSWORD).listTags())).toMatchObject({ code: "denied" });
        const store = ghcr(double, PASSWORD, "write");
        expect(await store.listTags()).toEqual([]);
        await writeTag(store, "t", "content");
        expect(await store.listTags()).toEqual(["t"]);
      },
      { visibility: "missing" },
    ));

  test("GitHub's registry has no place for an account with a hyphen at an end of its name", async () => {
    const reference = parseReference("foo-/repo");
    if (reference.kind !== "registry") throw new Error("it is a folder");
    const denial = {
      reference,
      access: "push",
      hasCredentials: true,
      status: 403,
      detail: "",
      at: "token",
    } as const;
    expect(deniedError(denial).hint).toContain("begins or ends with a hyphen. Name another registry");
    const usual = { ...denial, reference: { ...reference, repository: "foo-20261231/repo/nix-cache" } };
    expect(deniedError(usual).hint).toContain("The token is expired or wrong");
  });

  test("no challenge at all is a protocol error", () =>
    withDouble(async (double) => {
      double.faults.push(() => new Response("", { status: 401 }));
      await expect(openDouble(double).listTags()).rejects.toMatchObject({ code: "protocol" });
    }));

  test("a credentials source that fails says why, and is asked again the next time", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      let calls = 0;
      const credentials = async () => {
        if (++calls === 1) throw new Error("the helper crashed");
        return undefined;
      };
      const store = openDouble(double, { credentials });
      await expect(store.statBlob(DIGEST)).rejects.toThrow("the helper crashed");
      expect(await store.statBlob(DIGEST)).toBe(BLOB.length);
      await store.statBlob(DIGEST);
      expect(calls).toBe(2);
    }));
});

/** A store that believes to talk to ghcr.io. */
function openHttps(network: Network, password?: string, access: "read" | "write" = "read"): Store {
  return openRegistry(
    { kind: "registry", scheme: "https", host: "ghcr.io", repository: DOUBLE_REPOSITORY },
    {
      host: network,
      network,
      access,
      credentials: async () =>
        password === undefined ? undefined : { kind: "password", username: "somebody", password },
    },
  );
}
