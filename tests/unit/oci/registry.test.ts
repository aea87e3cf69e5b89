/** What registries do on bad days, against a double. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { digestOf } from "../../../src/oci/digest.ts";
import {
  decodeManifest,
  EMPTY_CONFIG,
  EMPTY_CONFIG_BYTES,
  IMAGE_CONFIG,
  MEDIA_TYPE_MANIFEST,
  withoutArtifactType,
} from "../../../src/oci/manifest.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import { manifestOf, randomBytes, readAll, writeBlob, writeTag } from "../../contract/oci/helpers.ts";
import {
  DOUBLE_REPOSITORY,
  failure,
  faultTimes,
  type RegistryDouble,
  withDouble,
} from "../../support/registry-double.ts";
import { recordedAnswer } from "../../support/registry-ways.ts";
import { openDouble, type TestNetwork, testNetwork } from "./network.ts";

const BLOB = new TextEncoder().encode("the blob");
const DIGEST = digestOf(BLOB);
const password = "ghp_secret";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nixcache-test-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Gives `body` a file with these bytes. */
async function withFile(
  bytes: Uint8Array,
  body: (bytes: Uint8Array, file: string) => Promise<void>,
): Promise<void> {
  const file = join(folder, "content");
  await Bun.write(file, bytes);
  await body(bytes, file);
}

test("a file of somebody else's is not uploaded under the digest that it had, whatever the registry checks", () =>
  withDouble((double) =>
    withFile(randomBytes(700_000), async (bytes, file) => {
      let whole = 0;
      double.faults.push(async ({ method, path }, raw) => {
        if (method !== "PUT" || !path.includes("/blobs/upload/")) return undefined;
        const received = await raw.bytes().catch(() => undefined);
        if (received?.length === bytes.length) whole++;
        return new Response(null, { status: 201 });
      });
      const store = openDouble(double, { password });
      const source = { digest: digestOf(bytes), size: bytes.length, content: { file, foreign: true } };
      await store.writeBlob(source);
      expect(whole).toBe(1);
      bytes[500_000] = (bytes[500_000] as number) ^ 1;
      await Bun.write(file, bytes);
      await expect(store.writeBlob(source)).rejects.toMatchObject({ code: "corrupt" });
      // The last bytes never went out.
      expect(whole).toBe(1);
    }),
  ));

describe("every failure but 404 is an error, never absence", () => {
  const statuses = [400, 402, 403, 405, 406, 409, 410, 416, 418, 429, 451, 500, 501, 502, 503, 504, 505];
  test.each(statuses)("%d", (status) =>
    withDouble(async (double) => {
      const refuse = ({ path }: { path: string }) =>
        path.startsWith("/v2/") ? new Response("", { status }) : undefined;
      double.faults.push(refuse);
      const store = openDouble(double, { password });
      for (const call of [
        () => store.listTags(),
        () => store.readManifest("nixcache-index"),
        () => store.readManifest("t", { ifNot: DIGEST }),
        () => store.statManifest("t"),
        () => store.statBlob(DIGEST),
        () => store.readBlob(DIGEST),
        () => store.readBlob(DIGEST, { range: { offset: 1, length: 2 } }),
        () => writeBlob(store, BLOB),
        () => store.writeManifest("t", MEDIA_TYPE_MANIFEST, manifestOf("x").bytes),
      ]) {
        const result = await call().catch((error) => error);
        expect(result).toBeInstanceOf(Error);
        expect(["unreachable", "denied", "protocol", "corrupt"]).toContain(result.code);
      }
    }),
  );

  test("an answer of 404 that speaks of rights is denied", () =>
    withDouble(async (double) => {
      double.faults.push(({ path }) =>
        path.startsWith("/v2/") ? failure(404, "UNAUTHORIZED", "no") : undefined,
      );
      await expect(openDouble(double).listTags()).rejects.toMatchObject({ code: "denied" });
    }));

  test("a page in the place of an answer", () =>
    withDouble(async (double) => {
      double.faults.push(
        () =>
          new Response("<html>Sign in to the hotel's network</html>", {
            headers: { "content-type": "text/html" },
          }),
      );
      const store = openDouble(double);
      const page = { code: "protocol", message: expect.stringMatching(/got 200 \(a web page\)$/) };
      await expect(store.listTags()).rejects.toMatchObject(page);
      await expect(store.readManifest(DIGEST)).rejects.toMatchObject(page);
    }));
});

describe("rate limits and bad gateways are sat out", () => {
  test("GHCR's 429 with the wait in the message, never less than 500 ms", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      const limited = () => failure(429, "TOOMANYREQUESTS", "retry-after: 10.305464ms, allowed: 2000/minute");
      double.faults.push(faultTimes(3, "POST", /uploads/, limited));
      await writeBlob(openDouble(double, { password, network }), BLOB);
      expect(double.blobs.get(DIGEST)).toEqual(BLOB);
      expect(network.sleeps).toEqual([500, 1000, 2000]);
    }));

  test("GHCR's 403 with a secondary rate limit, a minute and more", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      const limited = () =>
        failure(
          403,
          "DENIED",
          "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
        );
      double.faults.push(faultTimes(2, "PUT", /manifests/, limited));
      await writeTag(openDouble(double, { password, network }), "t", "content");
      expect(network.sleeps).toEqual([60_000, 60_000]);
    }));

  test("a HEAD has no body to say so, so a GET asks", () =>
    withDouble(async (double) => {
      await writeTag(openDouble(double, { password }), "t", "content");
      double.blobs.set(DIGEST, BLOB);
      const network = testNetwork();
      double.faults.push(({ method }) =>
        method === "HEAD" ? new Response(null, { status: 403 }) : undefined,
      );
      double.faults.push(faultTimes(1, "GET", /blobs/, () => failure(403, "DENIED", "secondary rate limit")));
      const store = openDouble(double, { password, network });
      expect(await store.statBlob(DIGEST)).toBe(BLOB.length);
      expect(await store.statManifest("t")).toBe(double.tags.get("t") as never);
      expect(network.sleeps).toEqual([60_000]);
    }));

  test("Retry-After in seconds, and a give-up that names it", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      double.faults.push(
        faultTimes(
          1,
          "GET",
          /tags/,
          () => new Response("", { status: 503, headers: { "retry-after": "9" } }),
        ),
      );
      const store = openDouble(double, { network });
      expect(await store.listTags()).toEqual([]);
      expect(network.sleeps).toEqual([9000]);
      double.faults.push(
        faultTimes(
          // With the size of a page, and without it.
          2,
          "GET",
          /tags/,
          () => new Response("", { status: 503, headers: { "retry-after": "7200" } }),
        ),
      );
      await expect(store.listTags()).rejects.toThrow("it asks to wait 7200 s more");
    }));
});

describe("uploads", () => {
  test("Location's own query stays as it is; a new session after BLOB_UPLOAD_UNKNOWN", () =>
    withDouble(async (double) => {
      double.faults.push(
        faultTimes(2, "PUT", /blobs/, () =>
          failure(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
        ),
      );
      double.faults.push(faultTimes(1, "PUT", /blobs/, () => new Response("", { status: 404 })));
      const file = join(folder, "upload");
      const bytes = randomBytes(3_000_000);
      await Bun.write(file, bytes);
      const digest = digestOf(bytes);
      await openDouble(double, { password }).writeBlob({ digest, size: bytes.length, content: { file } });
      expect(double.blobs.get(digest)).toEqual(bytes);
      expect([double.count("POST", /./), double.count("PUT", /./)]).toEqual([5, 4]);
      const put = double.requests.findLast(({ method }) => method === "PUT");
      expect(put?.path).toEndWith(`?state=a%2Bb%2F%3D&digest=${encodeURIComponent(digest)}`);
      expect(put?.headers.get("content-length")).toBe(String(bytes.length));
      expect(put?.headers.get("transfer-encoding")).toBeNull();
    }));

  test("a file of the wrong size, or that is gone, is never sent", () =>
    withDouble(async (double) => {
      const file = join(folder, "short");
      await Bun.write(file, BLOB);
      const store = openDouble(double, { password });
      const source = (size: number, path: string) => ({ digest: DIGEST, size, content: { file: path } });
      await expect(store.writeBlob(source(9, file))).rejects.toMatchObject({ code: "corrupt" });
      await expect(store.writeBlob(source(8, `${file}-gone`))).rejects.toMatchObject({ code: "filesystem" });
      expect(double.count("PUT", /./)).toBe(0);
    }));

  test("bytes that are not those of the digest are corrupt", () =>
    withDouble(async (double) => {
      const store = openDouble(double, { password });
      await expect(store.writeBlob({ digest: digestOf("x"), size: 8, content: BLOB })).rejects.toMatchObject({
        code: "corrupt",
      });
      expect(double.count("PUT", /./)).toBe(1);
    }));

  test("wrong bytes that the registry calls an invalid upload, as olareg does, are corrupt at the first answer", () =>
    withDouble(async (double) => {
      const invalid = () => failure(400, "BLOB_UPLOAD_INVALID", "blob upload invalid");
      double.faults.push(faultTimes(2, "PUT", /blobs/, invalid));
      const store = openDouble(double, { password });
      const other = digestOf("other bytes");
      await withFile(BLOB, async (_, file) => {
        for (const content of [BLOB, { file }]) {
          const refused = store.writeBlob({ digest: other, size: BLOB.length, content });
          await expect(refused).rejects.toMatchObject({
            code: "corrupt",
            message: expect.stringContaining(DIGEST),
          });
        }
        expect(double.count("PUT", /blobs/)).toBe(2);
        // The right bytes met a fault of the registry's, which passes.
        double.faults.push(faultTimes(1, "PUT", /blobs/, invalid));
        await store.writeBlob({ digest: DIGEST, size: BLOB.length, content: { file } });
        expect(double.count("PUT", /blobs/)).toBe(4);
      });
    }));

  /** A network whose first PUT takes the body as the test says, and then fails as a broken connection does. */
  const breakingFirstPut = (
    network: TestNetwork,
    take: (body: Reader, signal: AbortSignal) => Promise<unknown>,
  ) => {
    let first = true;
    return async (url: string, init: RequestInit): Promise<Response> => {
      if (init.method !== "PUT" || !first) return network.fetch(url, init);
      first = false;
      const body = (init.body as unknown as ReadableStream<Uint8Array>).getReader() as Reader;
      await take(body, init.signal as AbortSignal);
      throw Object.assign(new TypeError("broken"), { code: "ECONNRESET" });
    };
  };
  interface Reader {
    read(): Promise<{ done: boolean }>;
    cancel(): Promise<void>;
  }

  const upload = (
    double: RegistryDouble,
    network: TestNetwork,
    take: Parameters<typeof breakingFirstPut>[1],
  ) =>
    withFile(randomBytes(3_000_000), async (bytes, file) => {
      const digest = digestOf(bytes);
      const fetchDouble = breakingFirstPut(network, take);
      const store = openDouble(double, { password, network: { ...network, fetch: fetchDouble } });
      await store.writeBlob({ digest, size: bytes.length, content: { file } });
      expect(double.blobs.get(digest)).toEqual(bytes);
      expect(network.sleeps).toEqual([500]);
    });

  test("that stand still in the middle are cut, and tried again", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      await upload(double, network, async (body, signal) => {
        await body.read();
        const cut = new Promise((resolve) => signal.addEventListener("abort", resolve));
        await network.fireTimer(PATIENT.stallTimeoutMs);
        await cut;
      });
    }));

  test("that are never answered are cut, and tried again", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      await upload(double, network, async (body, signal) => {
        while (!(await body.read()).done) {}
        const cut = new Promise((resolve) => signal.addEventListener("abort", resolve));
        await network.fireTimer(PATIENT.answerTimeoutMs);
        await cut;
      });
    }));

  test("that break while the file is being read are the network's fault, and tried again", () =>
    withDouble(async (double) => {
      const network = testNetwork();
      await upload(double, network, async (body) => {
        // The stream has started by now, so the next read does begin to read the file.
        await Bun.sleep(0);
        const read = body.read();
        await body.cancel();
        await read;
        // Time for the file's bytes to come after all. Where they come later still, nothing is different.
        await Bun.sleep(20);
      });
    }));

  test("a POST that is refused is an error that names it", () =>
    withDouble(async (double) => {
      double.faults.push(faultTimes(1, "POST", /./, () => failure(404, "NAME_UNKNOWN", "no such project")));
      const upload = writeBlob(openDouble(double, { password }), BLOB);
      await expect(upload).rejects.toMatchObject({
        code: "protocol",
        message: expect.stringContaining("no such project"),
      });
    }));
});

describe("blobs", () => {
  test("are asked for with HEAD, which is never sent to storage", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      const store = openDouble(double);
      expect(await store.statBlob(DIGEST)).toBe(8);
      expect(double.count("GET", /blobs/)).toBe(0);
      const redirect = () =>
        new Response(null, { status: 307, headers: { location: `http://${double.storageHost}/x` } });
      double.faults.push(faultTimes(1, "HEAD", /./, redirect));
      expect(await store.statBlob(DIGEST)).toBe(8);
      expect(
        double.requests.filter(({ origin }) => origin === "storage").map(({ method }) => method),
      ).toEqual(["GET"]);
    }));

  test("are there again after a link has expired: the registry makes a new one", () =>
    withDouble(async (double) => {
      double.blobs.set(DIGEST, BLOB);
      let left = 2;
      double.faults.push(({ origin }) => {
        if (origin === "storage" && left-- > 0) double.expireLinks();
        return undefined;
      });
      const network = testNetwork();
      const stream = await openDouble(double, { network }).readBlob(DIGEST);
      expect(await new Response(stream).text()).toBe("the blob");
      expect(network.sleeps).toEqual([500, 1000]);
    }));

  test("that redirect for ever are an error", () =>
    withDouble(async (double) => {
      double.faults.push(({ path }) =>
        path.includes("/blobs/")
          ? new Response(null, { status: 302, headers: { location: path } })
          : undefined,
      );
      double.faults.push(() => undefined);
      await expect(openDouble(double).readBlob(DIGEST)).rejects.toMatchObject({ code: "protocol" });
    }));

  test("that come encoded are refused: their bytes would not be those of the digest", () =>
    withDouble(async (double) => {
      double.faults.push(({ method, path }) =>
        method === "GET" && path.includes("/blobs/")
          ? new Response(Bun.gzipSync(BLOB), { headers: { "content-encoding": "gzip" } })
          : undefined,
      );
      await expect(openDouble(double).readBlob(DIGEST)).rejects.toMatchObject({ code: "protocol" });
    }));
});

describe("manifests", () => {
  const put = (
    double: RegistryDouble,
    tag: string,
    bytes: Uint8Array,
    mediaType: string = MEDIA_TYPE_MANIFEST,
  ) => {
    const digest = digestOf(bytes);
    double.manifests.set(digest, { mediaType, bytes });
    double.tags.set(tag, digest);
    return digest;
  };

  test("are checked against the digest asked for and the one stated", () =>
    withDouble(async (double) => {
      const { bytes } = manifestOf("content");
      const digest = put(double, "t", bytes);
      const store = openDouble(double);
      expect((await readAll(store, digest)).bytes).toEqual(bytes);
      double.manifests.set(digest, { mediaType: MEDIA_TYPE_MANIFEST, bytes: manifestOf("other").bytes });
      await expect(store.readManifest(digest)).rejects.toMatchObject({ code: "corrupt" });
      await expect(store.readManifest("t")).rejects.toMatchObject({ code: "corrupt" });
      expect(await store.statManifest("t")).toBe(digest);
    }));

  test("have a digest also where the registry states none (ECR)", () =>
    withDouble(async (double) => {
      const { bytes } = manifestOf("content");
      double.faults.push(({ path, method }) =>
        path.includes("/manifests/")
          ? new Response(method === "HEAD" ? null : (bytes as never), {
              headers: { "content-type": "a/b; c=d" },
            })
          : undefined,
      );
      const store = openDouble(double);
      expect(await store.statManifest("t")).toBe(digestOf(bytes));
      expect(await readAll(store, "t")).toEqual({ digest: digestOf(bytes), mediaType: "a/b", bytes });
      expect(await store.readManifest("t", { ifNot: digestOf(bytes) })).toBe("unchanged");
    }));

  test("above 4 MiB are refused while they are read", () =>
    withDouble(async (double) => {
      put(double, "t", new Uint8Array(4 * 1024 * 1024 + 1));
      await expect(openDouble(double).readManifest("t")).rejects.toMatchObject({ code: "protocol" });
      put(double, "t", new Uint8Array(4 * 1024 * 1024));
      expect((await readAll(openDouble(double), "t")).bytes.length).toBe(4 * 1024 * 1024);
    }));

  test("that name missing blobs: the digests, wherever the registry puts them", () =>
    withDouble(async (double) => {
      const [a, b, c] = ["a", "b", "c"].map((letter) => `sha256:${letter.repeat(64)}`);
      const answer = (status: number, errors: unknown[]) => () => Response.json({ errors }, { status });
      const code = "MANIFEST_BLOB_UNKNOWN";
      const answers: [() => Response, unknown[]][] = [
        [
          answer(400, [
            { code, detail: a },
            { code, detail: { digest: b } },
            { code, message: `blob ${c} unknown` },
          ]),
          [a, b, c],
        ],
        [answer(404, [{ code, message: "blob unknown", detail: { Digest: a, other: [a] } }]), [a]],
        [answer(404, [{ code, message: "manifest blob unknown" }]), []],
        [answer(404, [{ code: "BLOB_UNKNOWN", detail: `x${a}0` }]), []],
      ];
      for (const [fault, digests] of answers) {
        double.faults.splice(0, 1, faultTimes(1, "PUT", /manifests/, fault));
        const result = await openDouble(double, { password }).writeManifest(
          "t",
          MEDIA_TYPE_MANIFEST,
          manifestOf("x").bytes,
        );
        expect(result).toEqual({ blobsMissing: true, digests } as never);
      }
    }));

  test.each([400, 405, 415])(
    "with an artifact type, refused with %d: an image config is taken, and remembered",
    (status) =>
      withDouble(
        async (double) => {
          const store = openDouble(double, { password });
          const { bytes, layer } = manifestOf("content");
          await writeBlob(store, layer);
          await writeBlob(store, EMPTY_CONFIG_BYTES);
          const digest = await store.writeManifest("t", MEDIA_TYPE_MANIFEST, bytes);
          const stored = await readAll(store, "t");
          expect(stored.digest).toBe(digest as never);
          expect(decodeManifest(stored.bytes, "t")).toEqual(withoutArtifactType(decodeManifest(bytes, "t")));
          expect(double.blobs.has(IMAGE_CONFIG.digest)).toBe(true);

          const before = double.count("PUT", /manifests/);
          await writeTag(store, "u", "more");
          expect(double.count("PUT", /manifests/)).toBe(before + 1);
          // A manifest that was read is put under a second tag with its own bytes, so with the same digest.
          expect(await store.writeManifest("dead-t", MEDIA_TYPE_MANIFEST, stored.bytes)).toBe(digest);
        },
        { refusesArtifactTypes: status },
      ),
  );

  test("refused for another reason: the first refusal is what one is told", () =>
    withDouble(async (double) => {
      let count = 0;
      double.faults.push(({ method, path }) =>
        method === "PUT" && path.includes("/manifests/")
          ? failure(400, "MANIFEST_INVALID", `refusal ${++count}`)
          : undefined,
      );
      const store = openDouble(double, { password });
      const { bytes, layer } = manifestOf("x");
      for (const blob of [layer, EMPTY_CONFIG_BYTES]) await writeBlob(store, blob);
      await expect(store.writeManifest("t", MEDIA_TYPE_MANIFEST, bytes)).rejects.toMatchObject({
        code: "protocol",
        message: expect.stringContaining("refusal 1"),
      });
      expect(count).toBe(2);
    }));

  test.each([400, 404, 422, 500])("refused with %d: the blobs that are not there are missing", (status) =>
    withDouble(async (double) => {
      double.faults.push(({ method, path }) =>
        method === "PUT" && path.includes("/manifests/") ? new Response("no", { status }) : undefined,
      );
      const store = openDouble(double, { password });
      const { bytes, layer } = manifestOf("x");
      const result = () => store.writeManifest("t", MEDIA_TYPE_MANIFEST, bytes);
      await writeBlob(store, layer);
      expect(await result()).toEqual({ blobsMissing: true, digests: [EMPTY_CONFIG.digest], inferred: true });
      await writeBlob(store, EMPTY_CONFIG_BYTES);
      await expect(result()).rejects.toMatchObject({ code: status === 500 ? "unreachable" : "protocol" });
      // What cannot be asked for changes nothing.
      double.faults.push(({ method }) =>
        method === "HEAD" ? new Response(null, { status: 418 }) : undefined,
      );
      await expect(result()).rejects.toThrow(`got ${status}`);
    }),
  );

  test("that the registry stores as something else are an error", () =>
    withDouble(async (double) => {
      const other = () =>
        new Response(null, { status: 201, headers: { "docker-content-digest": digestOf("other") } });
      double.faults.push(faultTimes(1, "PUT", /manifests/, other));
      const write = openDouble(double, { password }).writeManifest(
        "t",
        MEDIA_TYPE_MANIFEST,
        manifestOf("x").bytes,
      );
      await expect(write).rejects.toMatchObject({ code: "protocol" });
    }));

  test("cannot be deleted at GHCR, nor without the right: refused, not an error", () =>
    withDouble(async (double) => {
      const digest = put(double, "t", manifestOf("content").bytes);
      expect(await openDouble(double, { password }).deleteManifest(digest)).toMatchObject({
        everything: true,
      });
      for (const answer of [
        () => failure(400, "UNSUPPORTED", "x"),
        () => failure(403, "DENIED", "x"),
        () => new Response("", { status: 403 }),
        () => new Response("", { status: 501 }),
      ]) {
        double.faults.splice(0, 1, faultTimes(1, "DELETE", /./, answer));
        expect(await openDouble(double, { password }).deleteManifest(digest)).toMatchObject({
          everything: true,
        });
      }
      double.faults.splice(
        0,
        1,
        faultTimes(1, "DELETE", /./, () => failure(404, "MANIFEST_UNKNOWN", "x")),
      );
      expect(await openDouble(double, { password }).deleteManifest(digest)).toBe(false);
      double.faults.splice(
        0,
        1,
        faultTimes(1, "DELETE", /./, () => new Response(null, { status: 202 })),
      );
      expect(await openDouble(double, { password }).deleteManifest(digest)).toBe(true);
      // A repository that zot does not know has nothing to delete; any other 400 says nothing of what is there.
      double.faults.splice(0, 1, () => recordedAnswer("zot", "a repository that nobody has made", 3));
      expect(await openDouble(double, { password }).deleteManifest(digest)).toBe(false);
      double.faults.splice(0, 1, () => new Response("", { status: 400 }));
      const store = openDouble(double, { password });
      for (const everything of [false, false, true])
        expect(await store.deleteManifest(digest)).toMatchObject({ everything });
    }));
});

describe("tag lists", () => {
  const tagsPath = `/v2/${DOUBLE_REPOSITORY}/tags/list`;

  test("of many pages, oldest first", () =>
    withDouble(
      async (double) => {
        const tags = Array.from({ length: 95 }, (_, i) => `seg-${(i * 37) % 95}`);
        for (const tag of tags) double.tags.set(tag, DIGEST);
        expect(await openDouble(double).listTags()).toEqual(tags);
        expect(double.count("GET", /tags/)).toBe(11);
      },
      { tagsPerPage: 10 },
    ));

  test("that do not end are an error", () =>
    withDouble(async (double) => {
      let page = 0;
      const answer = (link: string) =>
        Response.json({ tags: ["t"] }, { headers: { link: `<${link}>; rel="next"` } });
      double.faults.push(({ path }) => (path.startsWith(tagsPath) ? answer(tagsPath) : undefined));
      await expect(openDouble(double).listTags()).rejects.toThrow(/do not end \(\d so far\)/);
      double.faults.splice(0, 1, ({ path }) =>
        path.startsWith(tagsPath) ? answer(`${tagsPath}?page=${++page}`) : undefined,
      );
      await expect(openDouble(double).listTags()).rejects.toThrow("do not end (1000 so far)");
    }));

  test("that break off between two pages are an error, never a shorter list", () =>
    withDouble(
      async (double) => {
        for (let i = 0; i < 30; i++) double.tags.set(`t${i}`, DIGEST);
        double.faults.push(({ path }) =>
          path.includes("last=") ? failure(404, "NAME_UNKNOWN", "gone") : undefined,
        );
        await expect(openDouble(double).listTags()).rejects.toMatchObject({ code: "protocol" });
        double.faults.splice(0, 1, ({ path }) =>
          path.includes("last=") ? new Response("", { status: 500 }) : undefined,
        );
        await expect(openDouble(double).listTags()).rejects.toMatchObject({ code: "unreachable" });
      },
      { tagsPerPage: 10 },
    ));

  test("never lead to another origin", () =>
    withDouble(async (double) => {
      const link = `<http://${double.storageHost}/v2/x>; rel="next"`;
      double.faults.push(({ path }) =>
        path.startsWith(tagsPath) ? Response.json({ tags: [] }, { headers: { link } }) : undefined,
      );
      await expect(openDouble(double, { password }).listTags()).rejects.toMatchObject({ code: "protocol" });
      expect(double.requests.some(({ origin }) => origin === "storage")).toBe(false);
    }));

  test.each<[string, unknown, string[] | string]>([
    ["null for none", { tags: null }, []],
    ["no field", { name: "x" }, "protocol"],
    ["names that are no tags", { tags: ["ok", "../x", 5, ""] }, ["ok"]],
    ["a list", [], "protocol"],
    ["a text", { tags: "x" }, "protocol"],
    ["null", null, "protocol"],
  ])("with %s", (_, body, expected) =>
    withDouble(async (double) => {
      double.faults.push(({ path }) => (path.startsWith(tagsPath) ? Response.json(body) : undefined));
      const listed = openDouble(double).listTags();
      if (typeof expected === "string") await expect(listed).rejects.toMatchObject({ code: expected });
      else expect(await listed).toEqual(expected);
    }),
  );
});

test("an interrupt ends what is under way, at once and without another try", () =>
  withDouble(async (double) => {
    const controller = new AbortController();
    const network = testNetwork();
    const hanging = Promise.withResolvers<void>();
    double.faults.push(async ({ path }) => {
      if (!path.includes("/tags/")) return undefined;
      controller.abort();
      await hanging.promise;
      return undefined;
    });
    const listed = openDouble(double, { network }).listTags({ signal: controller.signal });
    await expect(listed).rejects.toMatchObject({ code: "interrupted" });
    hanging.resolve();
    expect([network.sleeps, double.count("GET", /tags/)]).toEqual([[], 1]);
  }));

test("an answer that never comes is cut, tried again, and given up", () =>
  withDouble(async (double) => {
    const network = testNetwork();
    const hanging = Promise.withResolvers<void>();
    double.faults.push(async ({ path }) => {
      if (!path.includes("/tags/")) return undefined;
      void network.fireTimer(PATIENT.connectTimeoutMs);
      await hanging.promise;
      return undefined;
    });
    const listed = openDouble(double, { network, policy: { ...PATIENT, attempts: 2 } }).listTags();
    await expect(listed).rejects.toMatchObject({
      code: "unreachable",
      message: expect.stringContaining("no answer for 30 s"),
    });
    hanging.resolve();
    expect(network.sleeps).toEqual([500]);
  }));
