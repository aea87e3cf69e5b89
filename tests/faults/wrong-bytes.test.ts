/**
 * Wrong bytes never pass for right ones: a flipped or a missing byte anywhere is found. A part that goes wrong on
 * its way is fetched again from there, and the client sees an unbroken, right NAR; if it cannot be had, the
 * transfer breaks and never ends cleanly.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { retryPolicy } from "../../src/config.ts";
import { parseHash } from "../../src/nar/hash.ts";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import { openStore } from "../../src/oci/open.ts";
import { parseReference } from "../../src/oci/reference.ts";
import { BRISK } from "../../src/oci/retry.ts";
import type { Store } from "../../src/oci/store.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { openCacheStore } from "../support/audit.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { type Fault, noFaults } from "../support/fault-plan.ts";
import { type FaultProxy, type LoggedRequest, startFaultProxy } from "../support/fault-proxy.ts";
import { IMPATIENT } from "../support/hostile.ts";
import { hashPart } from "../support/http-cache.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, type TestNix } from "../support/nix.ts";
import { party, TestHost } from "../support/protocol.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { rawRequest } from "../support/raw-http.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const NAME = "wrong-bytes";
/** Places at which a byte is flipped, and at which the rest is missing, in each thing that is read. */
const PLACES = 12;
const ROOT_TAG = "nixcache-index";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix", "registry"], "wrong bytes", () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let proxy: FaultProxy;
  let paths: readonly string[];
  /** Sent as it comes: over 4 MiB. */
  let streamed: string;
  /** Read whole before it is sent: up to 4 MiB. */
  let buffered: string;

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    proxy = cleanup.add(await startFaultProxy({ registry: registry.host, redirects: true }));
    paths = (await buildClosure(nix, { paths: 10, seed: 10 })).paths;
    const add = async (name: string, size: number): Promise<string> => {
      const file = join(nix.folder, name);
      await writeRandomFile(file, size, 11);
      return (await nix.run("nix-store", ["--add", file])).trim();
    };
    [streamed, buffered] = [await add("streamed", 9 * MIB), await add("buffered", 2 * MIB)];
    const args = ["publish", ...paths, streamed, buffered, "--cache", `${registry.host}/${NAME}`, "--upstream", ""];
    expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
  });

  describe("of the index", () => {
    const open = (): Store => {
      const host = new TestHost(Date.now());
      return openStore(parseReference(`${proxy.host}/${NAME}`), { host, policy: retryPolicy(BRISK, IMPATIENT) });
    };
    /** What a fresh reader makes of the cache: the number of entries, or why it stops. */
    const read = async (): Promise<number | string> => {
      using reader = party(open(), new TestHost(Date.now()));
      try {
        await refresh(reader, { list: true });
      } catch (error) {
        expect(reader.database.view.count()).toBe(0);
        return (error as { code?: string }).code ?? String(error);
      }
      const missing = paths.filter((path) => reader.database.view.narinfo(hashPart(path)) === undefined);
      expect(missing).toEqual([]);
      return reader.database.view.count();
    };
    /** Damages every answer about one thing, at many places; `expected` is what a reader says then. */
    const everywhere = async (of: RegExp, size: number, expected: readonly (number | string)[]): Promise<void> => {
      const random = choices(`wrong bytes of ${of}`);
      for (let i = 0; i < PLACES; i++) {
        const at = random.below(size);
        const faults: Fault[] = [
          { kind: "flip", at },
          { kind: "truncate", after: at, clean: true },
          { kind: "truncate", after: at, clean: false },
        ];
        for (const fault of faults) {
          let hits = 0;
          proxy.plan = ({ method, path }) => (method === "GET" && of.test(path) && ++hits ? fault : undefined);
          const found = await read();
          expect({ fault, hits: hits > 0, found: expected.includes(found) ? "expected" : found }).toEqual({
            ...{ fault, hits: true, found: "expected" },
          });
        }
      }
      proxy.plan = noFaults;
    };
    const sizeOf = (path: RegExp) =>
      proxy.log.find((request) => path.test(request.path) && request.status === 200)?.sent ?? 0;

    test("in the root or its layer: a warning, and the segments are read instead", async () => {
      proxy.log.length = 0;
      expect(await read()).toBe(12);
      const blobs = proxy.log.filter(({ origin }) => origin === "storage");
      expect(blobs.length).toBe(1);
      const layer = new RegExp(blobs[0]?.path ?? "?");
      // What never comes whole is no damage that one could see: the registry does not answer.
      await everywhere(/manifests\/nixcache-index$/, sizeOf(/manifests\/nixcache-index$/), [12, "unreachable"]);
      await everywhere(layer, blobs[0]?.sent ?? 0, [12, "unreachable"]);
    }, 120_000);

    test("in a segment or its layer: an error, and nothing is read", async () => {
      const direct = openCacheStore(`${registry.host}/${NAME}`);
      const root = await direct.readManifest(ROOT_TAG);
      if (typeof root !== "object") throw new Error("there is no root");
      await direct.deleteManifest(root.digest);
      proxy.log.length = 0;
      expect(await read()).toBe(12);
      const [layer] = proxy.log.filter(({ origin }) => origin === "storage");
      await everywhere(/manifests\/seg-/, sizeOf(/manifests\/seg-/), ["corrupt", "unreachable"]);
      await everywhere(new RegExp(layer?.path ?? "?"), layer?.sent ?? 0, ["corrupt", "unreachable"]);
      await direct.writeManifest(ROOT_TAG, root.mediaType, root.bytes);
    }, 120_000);
  });

  describe("of a NAR", () => {
    let server: CliServer;

    beforeAll(async () => {
      const env = { ...IMPATIENT, NIXCACHE_RETRY_ATTEMPTS: "4", NIXCACHE_INDEX_DIR: cli.path("index-nar") };
      server = await cli.serve(["--cache", `${proxy.host}/${NAME}`, "--upstream", ""], { env });
      expect((await server.get("/_refresh", { method: "POST" })).status).toBe(200);
    });
    afterAll(async () => {
      await server?.stop();
    });

    const urlOf = async (path: string) => {
      const info = parseNarInfo(await (await server.get(`/${hashPart(path)}.narinfo`)).text());
      return { url: `/${info.url}`, size: info.fileSize as number, fileHash: info.fileHash };
    };
    const isRight = async (answer: Response, path: string): Promise<void> => {
      const { fileHash } = await urlOf(path);
      const bytes = await answer.bytes();
      const expected = Buffer.from(parseHash(fileHash ?? "", "FileHash").bytes).toString("hex");
      expect(new Bun.CryptoHasher("sha256").update(bytes).digest("hex")).toBe(expected);
    };
    /** The first request to storage meets this fault, or each of them. */
    const meet = (fault: Fault, times = 1): void => {
      let left = times;
      proxy.log.length = 0;
      proxy.plan = ({ origin, method }) =>
        origin === "storage" && method === "GET" && left-- > 0 ? fault : undefined;
    };
    const fromStorage = (): LoggedRequest[] => proxy.log.filter(({ origin }) => origin === "storage");

    describe.each(["streamed", "buffered"])("that is %s", (kind) => {
      const path = () => (kind === "streamed" ? streamed : buffered);

      test("breaks in the middle: fetched again from there, and the client notices nothing", async () => {
        const random = choices(`mid-download ${kind}`);
        const { url, size } = await urlOf(path());
        for (let i = 0; i < 4; i++) {
          const after = 1 + random.below(size - 1);
          for (const fault of [
            { kind: "reset-answer", after },
            { kind: "stall", after },
            { kind: "truncate", after, clean: false },
            { kind: "truncate", after, clean: true },
          ] as const) {
            // A stall costs its time-out: once is enough.
            if (fault.kind === "stall" && i > 0) continue;
            meet(fault);
            await isRight(await server.get(url), path());
            const requests = fromStorage();
            const resumed = Number(/^bytes=(\d+)-/.exec(requests[1]?.range ?? "")?.[1]);
            // A reset takes along what was under way; what has arrived is not fetched again.
            expect({ fault, requests: requests.length }).toEqual({ fault, requests: 2 });
            expect(resumed).toBeLessThanOrEqual(after);
            expect(requests[1]?.sent).toBe(size - resumed);
            if (fault.kind !== "reset-answer") expect(resumed).toBe(after);
          }
        }
      }, 60_000);

      test("meets a link that has expired: the registry gives another", async () => {
        const { url } = await urlOf(path());
        meet({ kind: "link-expired" });
        await isRight(await server.get(url), path());
        expect(fromStorage().map(({ status }) => status)).toEqual([403, 200]);
        expect(proxy.count("GET", /\/blobs\//)).toBe(2);
      });

      test("cannot be had: the transfer breaks, and never ends cleanly", async () => {
        const { url, size } = await urlOf(path());
        for (const fault of [
          { kind: "reset-answer", after: size >> 1 },
          { kind: "truncate", after: 0, clean: true },
          { kind: "flip", at: size >> 1 },
        ] as const) {
          meet(fault, Number.POSITIVE_INFINITY);
          // A reset gives a few bytes each time, which would be progress: no more of them.
          if (fault.kind === "reset-answer") {
            let first = true;
            proxy.plan = ({ origin }) => {
              if (origin !== "storage") return undefined;
              const is = first ? fault : ({ kind: "reset" } as const);
              first = false;
              return is;
            };
          }
          const answer = await rawRequest(server.url, `GET ${url} HTTP/1.1\r\nHost: x`);
          if (answer.status === 200) {
            expect(kind).toBe("streamed");
            expect(answer.head.toLowerCase()).toContain("transfer-encoding: chunked");
            expect(answer.body.subarray(-7).toString("latin1")).not.toContain("0\r\n\r\n");
          } else expect(answer.status).toBe(502);
          expect(proxy.log.length).toBeLessThan(40);
        }
        proxy.plan = noFaults;
        await isRight(await server.get(url), path());
      }, 60_000);
    });

    test("flipped once, and read whole before it is sent: fetched again", async () => {
      const { url, size } = await urlOf(buffered);
      meet({ kind: "flip", at: size >> 1 });
      await isRight(await server.get(url), buffered);
      expect(fromStorage().length).toBe(2);
    });

    test("flipped once, and sent as it came: the transfer breaks, since what has left cannot be taken back", async () => {
      const { url, size } = await urlOf(streamed);
      meet({ kind: "flip", at: size >> 1 });
      await expect((async () => (await server.get(url)).bytes())()).rejects.toThrow();
      proxy.plan = noFaults;
      await isRight(await server.get(url), streamed);
    });
  });
});
