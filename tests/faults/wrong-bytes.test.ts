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
const ENTRIES = 12;
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
    const args = [
      "publish",
      ...paths,
      streamed,
      buffered,
      "--cache",
      `${registry.host}/${NAME}`,
      "--upstream",
      "",
    ];
    expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
  });

  describe("of the index", () => {
    const open = (): Store => {
      const host = new TestHost(Date.now());
      return openStore(parseReference(`${proxy.host}/${NAME}`), {
        host,
        policy: retryPolicy(BRISK, IMPATIENT),
      });
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
    /**
     * Damages every answer about one thing, at many places; `flipped` is what a reader says to a flipped byte.
     * What ends early may be resumed until it is whole, and is right then, or never comes.
     */
    const everywhere = async (of: RegExp, size: number, flipped: number | string): Promise<void> => {
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
          proxy.plan = ({ method, path }) =>
            method === "GET" && of.test(path) && ++hits ? fault : undefined;
          const found = await read();
          const expected = fault.kind === "flip" ? [flipped] : [flipped, ENTRIES, "unreachable"];
          expect({ fault, hits: hits > 0, found, as: expected.includes(found) }).toMatchObject({
            hits: true,
            as: true,
          });
        }
      }
      proxy.plan = noFaults;
    };
    const sizeOf = (path: RegExp) =>
      proxy.log.find((request) => path.test(request.path) && request.status === 200)?.sent ?? 0;

    test("in the root or its layer: a warning, and the segments are read instead", async () => {
      proxy.log.length = 0;
      expect(await read()).toBe(ENTRIES);
      const blobs = proxy.log.filter(({ origin }) => origin === "storage");
      expect(blobs.length).toBe(1);
      const layer = new RegExp(blobs[0]?.path ?? "?");
      // What never comes whole is no damage that one could see: the registry does not answer.
      await everywhere(/manifests\/nixcache-index$/, sizeOf(/manifests\/nixcache-index$/), ENTRIES);
      await everywhere(layer, blobs[0]?.sent ?? 0, ENTRIES);
    }, 120_000);

    test("in a segment or its layer: an error, and nothing is read", async () => {
      const direct = openCacheStore(`${registry.host}/${NAME}`);
      const root = await direct.readManifest(ROOT_TAG);
      if (typeof root !== "object") throw new Error("there is no root");
      await direct.deleteManifest(root.digest);
      proxy.log.length = 0;
      expect(await read()).toBe(ENTRIES);
      const [layer] = proxy.log.filter(({ origin }) => origin === "storage");
      await everywhere(/manifests\/seg-/, sizeOf(/manifests\/seg-/), "corrupt");
      await everywhere(new RegExp(layer?.path ?? "?"), layer?.sent ?? 0, "corrupt");
      await direct.writeManifest(ROOT_TAG, root.mediaType, root.bytes);
    }, 120_000);

    test("once, on the way of a list, a manifest or a layer: fetched again, and nobody notices", async () => {
      const things: [RegExp, Fault][] = [
        [/tags\/list$/, { kind: "truncate", after: 30, clean: true }],
        [/manifests\/nixcache-index$/, { kind: "flip", at: 100 }],
        [/^\/sha256:/, { kind: "flip", at: 100 }],
      ];
      for (const [of, fault] of things) {
        let hits = 0;
        proxy.plan = ({ path }) => (of.test(path) && hits++ === 0 ? fault : undefined);
        expect([of, await read(), hits]).toEqual([of, ENTRIES, 2]);
        proxy.plan = noFaults;
      }
    });
  });

  describe.each([1, 4])("of a NAR, over %i connections", (connections) => {
    let server: CliServer;

    beforeAll(async () => {
      const env = { ...IMPATIENT, NIXCACHE_RETRY_ATTEMPTS: "4", NIXCACHE_INDEX_DIR: cli.path("index-nar") };
      const args = [
        "--cache",
        `${proxy.host}/${NAME}`,
        "--upstream",
        "",
        "--connections",
        String(connections),
      ];
      server = await cli.serve(args, { env });
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
    const firstOf = ({ range }: LoggedRequest): number => Number(/^bytes=(\d+)-/.exec(range ?? "")?.[1] ?? 0);
    const endOf = ({ range }: LoggedRequest, size: number): number =>
      Number(/-(\d+)$/.exec(range ?? "")?.[1] ?? size - 1) + 1;

    describe.each(["streamed", "buffered"])("that is %s", (kind) => {
      const path = () => (kind === "streamed" ? streamed : buffered);

      test("breaks in the middle: fetched again from there, and the client notices nothing", async () => {
        const random = choices(`mid-download ${kind}`);
        const { url, size } = await urlOf(path());
        for (let i = 0; i < 4; i++) {
          const after = 1 + random.below(MIB);
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
            const [broken, ...others] = fromStorage() as [LoggedRequest, ...LoggedRequest[]];
            const again = others.find((other) => endOf(other, size) === endOf(broken, size));
            const resumed = again === undefined ? Number.NaN : firstOf(again);
            // All that had not arrived comes in further requests, one or more, and nothing else does.
            const further = others.reduce((sum, { sent }) => sum + sent, 0);
            expect({ fault, further }).toEqual({ fault, further: size - resumed });
            // A connection that breaks takes along what was still in buffers; nothing else is fetched twice.
            if (fault.kind === "stall" || (fault.kind === "truncate" && fault.clean))
              expect(resumed).toBe(after);
            else expect(resumed).toBeLessThanOrEqual(after);
          }
        }
      }, 60_000);

      test("meets a link that has expired: the registry gives another", async () => {
        const { url } = await urlOf(path());
        await isRight(await server.get(url), path());
        meet({ kind: "link-expired" });
        await isRight(await server.get(url), path());
        const [first, ...others] = fromStorage().map(({ status }) => status);
        expect([first, others.every((status) => status < 300)]).toEqual([403, true]);
        expect(proxy.count("GET", /\/blobs\//)).toBe(1);
      });

      test("is answered with other bytes than asked for: never a wrong NAR that ends cleanly", async () => {
        const { url } = await urlOf(path());
        meet({ kind: "range-ignored" }, 3);
        await isRight(await server.get(url), path());
        // Asked for whole instead, which is right. More of them, and no range would be asked for from then on.
        meet({ kind: "range-shifted", by: 1 }, 2);
        await isRight(await server.get(url), path());
        expect(proxy.log.filter(({ origin }) => origin === "storage").length).toBeGreaterThan(1);
        proxy.plan = noFaults;
        await isRight(await server.get(url), path());
      });

      test("cannot be had: the transfer breaks, and never ends cleanly", async () => {
        const { url } = await urlOf(path());
        for (const fault of [
          { kind: "reset-answer", after: 100_000 },
          { kind: "truncate", after: 0, clean: true },
          { kind: "flip", at: 100_000 },
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
          } else expect(answer.status).toBe(404);
          expect(proxy.log.length).toBeLessThan(40);
        }
        proxy.plan = noFaults;
        await isRight(await server.get(url), path());
      }, 60_000);
    });

    test("whose link expires in the middle: the registry gives another, once for each request under way", async () => {
      const { url } = await urlOf(streamed);
      proxy.log.length = 0;
      let seen = 0;
      proxy.plan = ({ origin }) => {
        // The second: a connection that is fast has few more.
        if (origin === "storage" && ++seen === 2) proxy.expireLinks();
        return undefined;
      };
      await isRight(await server.get(url), streamed);
      expect(fromStorage().filter(({ status }) => status === 403).length).toBeGreaterThan(0);
      // One at first, unless an earlier NAR has left a link.
      expect(proxy.count("GET", /\/blobs\//)).toBeLessThanOrEqual(1 + connections);
    });

    test("of which every window breaks somewhere is put together right", async () => {
      const random = choices(`every window ${connections}`);
      const { url } = await urlOf(streamed);
      proxy.log.length = 0;
      const met = new Set<string>();
      proxy.plan = ({ origin, range }) => {
        const end = /-(\d+)$/.exec(range ?? "")?.[1] ?? "";
        if (origin !== "storage" || met.has(end)) return undefined;
        met.add(end);
        const after = random.below(MIB);
        // It costs its time-out: once is enough.
        if (met.size === 3) return { kind: "stall", after };
        const kinds: Fault[] = [
          { kind: "reset" },
          { kind: "reset-answer", after },
          { kind: "truncate", after, clean: true },
          { kind: "truncate", after, clean: false },
          { kind: "answer", name: "unavailable" },
          { kind: "link-expired" },
        ];
        return kinds[random.below(kinds.length)];
      };
      await isRight(await server.get(url), streamed);
      expect(met.size).toBeGreaterThan(3);
    });

    test("flipped once, and read whole before it is sent: fetched again", async () => {
      const { url } = await urlOf(buffered);
      meet({ kind: "flip", at: 100_000 });
      await isRight(await server.get(url), buffered);
      expect(fromStorage().length).toBe(2);
    });

    test("flipped once, and sent as it came: the transfer breaks, since what has left cannot be taken back", async () => {
      const { url } = await urlOf(streamed);
      meet({ kind: "flip", at: 100_000 });
      await expect((async () => (await server.get(url)).bytes())()).rejects.toThrow();
      proxy.plan = noFaults;
      await isRight(await server.get(url), streamed);
    });
  });
});
