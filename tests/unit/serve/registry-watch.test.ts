import { describe, expect, test } from "bun:test";
import { NixcacheError } from "../../../src/errors.ts";
import { type Digest, digestOf } from "../../../src/oci/digest.ts";
import { AnsweredWith } from "../../../src/oci/retry.ts";
import type { Store } from "../../../src/oci/store.ts";
import { watchRegistry } from "../../../src/serve/registry-watch.ts";
import { LeftAlone } from "../../../src/upstream/failure.ts";

type Options = NonNullable<Parameters<Store["readBlob"]>[1]>;
type Answer = (digest: Digest, options: Options) => ReturnType<Store["readBlob"]>;

const DIGEST = digestOf(new Uint8Array(1));
const refused = () => new NixcacheError("unreachable", "GET r/v2: nobody listens there");
const bytes = () => new Blob(["bytes"]).stream();

/** A registry that answers as `answer` says, and a clock that stands still until it is moved. */
function open(answer: Answer = async () => bytes()) {
  const told: string[] = [];
  const asked: Options[] = [];
  const host = {
    time: 1_000_000,
    now: () => host.time,
    // The shortest pauses.
    random: () => 0,
    // Nobody waits for what does not come.
    sleep: async () => {},
  };
  const registry = { answer };
  const inner = {
    name: "the registry",
    readBlob: async (digest: Digest, options: Options = {}) => {
      asked.push(options);
      options.signal?.throwIfAborted();
      return registry.answer(digest, options);
    },
  };
  const store = watchRegistry(inner, { host, onError: (message) => told.push(message) });
  const read = async (options: Options = {}) => {
    const body = await store.readBlob(DIGEST, { size: 5, ...options });
    return body === undefined ? undefined : new Response(body).text();
  };
  return { host, registry, store, read, told, asked };
}

/** Lets what was begun come to rest. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("a registry that is watched", () => {
  test("gives what it has, and says what it has not", async () => {
    const { read, registry, told } = open();
    expect(await read()).toBe("bytes");
    registry.answer = async () => undefined;
    expect(await read()).toBeUndefined();
    expect(told).toEqual([]);
  });

  test("that is down is asked a few times for 200 NARs, and told of once", async () => {
    const { read, told, asked, host } = open(async () => {
      throw refused();
    });
    for (let i = 0; i < 200; i++) {
      await expect(read()).rejects.toBeInstanceOf(LeftAlone);
      host.time += 10;
    }
    // Once; then by single tries for one byte, five at once and two a second.
    expect(asked.length).toBe(1 + 5 + 3);
    expect(asked.slice(1)).toEqual(
      asked.slice(1).map(() => ({ range: { offset: 0, length: 1 }, attempts: 1 })),
    );
    expect(told).toEqual(["GET r/v2: nobody listens there; until it answers again its NARs count as absent"]);
  });

  test("is used again by the first who asks once it is back", async () => {
    const { read, registry, host, told } = open(async () => {
      throw refused();
    });
    await expect(read()).rejects.toThrow("the registry does not answer: GET r/v2: nobody listens there");
    await expect(read()).rejects.toThrow();
    registry.answer = async () => bytes();
    host.sleep = () => new Promise(() => {});
    expect(await read()).toBe("bytes");
    expect(told.at(-1)).toBe("the registry answers again");
  });

  test("is used again half a second after a storm of questions", async () => {
    const { read, registry, host, asked } = open(async () => {
      throw refused();
    });
    for (let i = 0; i < 100; i++) await expect(read()).rejects.toThrow();
    expect(asked.length).toBe(1 + 5);
    registry.answer = async () => bytes();
    host.sleep = () => new Promise(() => {});
    await expect(read()).rejects.toThrow();
    host.time += 500;
    expect(await read()).toBe("bytes");
  });

  test("is asked by one for all who wait", async () => {
    const { read, registry, host, asked } = open(async () => {
      throw refused();
    });
    await expect(read()).rejects.toThrow();
    const back = Promise.withResolvers<void>();
    registry.answer = async () => {
      await back.promise;
      return bytes();
    };
    host.sleep = () => new Promise(() => {});
    const reading = Array.from({ length: 25 }, () => read());
    await settle();
    expect(asked).toHaveLength(2);
    back.resolve();
    expect(await Promise.all(reading)).toEqual(reading.map(() => "bytes"));
    expect(asked).toHaveLength(2 + 25);
  });

  test("that hangs is waited for once: who waits then is answered, and who comes later does not wait", async () => {
    const hanging = Promise.withResolvers<never>();
    const { read, registry, host, asked } = open((_, { signal }) => {
      const aborted = Promise.withResolvers<never>();
      signal?.addEventListener("abort", () => aborted.reject(signal.reason));
      return Promise.race([hanging.promise, aborted.promise]);
    });
    const waiting = Array.from({ length: 25 }, () => read().catch((error) => error));
    await settle();
    host.time += 10_000;
    hanging.reject(refused());
    for (const error of await Promise.all(waiting)) expect(error).toBeInstanceOf(LeftAlone);
    expect(asked).toHaveLength(25);

    // The question whether it is back hangs as well. It takes 10 s, so the next one follows 15 to 30 s later.
    const probe = Promise.withResolvers<never>();
    registry.answer = () => probe.promise;
    host.time += 100;
    for (let i = 0; i < 20; i++) await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(asked).toHaveLength(26);
    host.time += 10_000;
    probe.reject(refused());
    await settle();
    registry.answer = async () => bytes();
    host.time += 14_000;
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(asked).toHaveLength(26);
    host.time += 1_000;
    host.sleep = () => new Promise(() => {});
    expect(await read()).toBe("bytes");
  });

  test("that has trouble with one blob goes on with others; with three in a row it is left alone", async () => {
    const { read, registry, told, asked } = open(async () => {
      throw new NixcacheError("unreachable", "GET r/v2: got 500", {
        cause: new AnsweredWith(500, undefined),
      });
    });
    const good = registry.answer;
    for (let i = 0; i < 2; i++) await expect(read()).rejects.not.toBeInstanceOf(LeftAlone);
    registry.answer = async () => bytes();
    expect(await read()).toBe("bytes");
    registry.answer = good;
    for (let i = 0; i < 2; i++) await expect(read()).rejects.not.toBeInstanceOf(LeftAlone);
    expect(told).toEqual([]);
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(asked.at(-1)).not.toHaveProperty("attempts");
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(asked.at(-1)).toHaveProperty("attempts");
  });

  test("that asks to wait is left alone for as long", async () => {
    const { read, registry, host, asked } = open(async () => {
      throw new NixcacheError("unreachable", "GET r/v2: got 429", { cause: new AnsweredWith(429, 20_000) });
    });
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    registry.answer = async () => bytes();
    host.time += 19_999;
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    expect(asked).toHaveLength(1);
    host.time += 1;
    host.sleep = () => new Promise(() => {});
    expect(await read()).toBe("bytes");
  });

  test("a body that never begins, or that breaks, is an outage as well; wrong bytes and refusals are none", async () => {
    const breaking = (code: "unreachable" | "corrupt" | "denied", after: string) =>
      async function* () {
        if (after !== "") yield Buffer.from(after);
        throw new NixcacheError(code, "broken");
      };
    for (const [code, after, isOutage] of [
      ["unreachable", "", true],
      ["unreachable", "some", true],
      ["corrupt", "some", false],
      ["denied", "", false],
    ] as const) {
      const { read, asked } = open(
        async () => new Response(breaking(code, after)()).body as ReadableStream<Uint8Array>,
      );
      for (let i = 0; i < 2; i++) await expect(read()).rejects.toThrow();
      expect([code, after, asked[1]?.attempts]).toEqual([code, after, isOutage ? 1 : undefined]);
    }
  });

  test("a client that hangs up says nothing about it", async () => {
    const { read, registry, told } = open((_, { signal }) => {
      const { promise, reject } = Promise.withResolvers<never>();
      signal?.addEventListener("abort", () => reject(refused()));
      return promise;
    });
    const client = new AbortController();
    const reading = read({ signal: client.signal });
    await settle();
    client.abort();
    await expect(reading).rejects.toThrow();
    registry.answer = async () => bytes();
    expect(await read()).toBe("bytes");
    expect(told).toEqual([]);
  });

  test("the index is asked for all the same", async () => {
    const { store, read, asked } = open(async () => {
      throw refused();
    });
    await expect(read()).rejects.toBeInstanceOf(LeftAlone);
    for (let i = 0; i < 3; i++) await expect(store.readBlob(DIGEST)).rejects.toThrow("nobody listens");
    expect(asked).toHaveLength(4);
  });
});
