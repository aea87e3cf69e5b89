/** Several upstreams behind the server: doubles that answer when a test says, and a clock that a test moves. */
import { describe, expect, test } from "bun:test";
import { createUpstreams } from "../../../src/serve/upstreams.ts";
import type { Upstream, UpstreamRequest } from "../../../src/upstream/client.ts";
import { UpstreamFailure } from "../../../src/upstream/failure.ts";
import { storeHash } from "../../support/protocol.ts";

const HASH = storeHash("u");
const NARINFO = (of: string) => `StorePath: /nix/store/${HASH}-u\nURL: nar/${of}.nar\n`;
const WAY = { method: "GET", headers: new Headers(), signal: new AbortController().signal };

type Answer = string | undefined | Promise<string | undefined>;

interface Double extends Upstream {
  readonly narinfos: string[];
  readonly requests: string[];
  readonly headers: Readonly<Record<string, string>>[];
}

/** Answers, or throws what `narinfo` and `file` throw. */
function double(
  name: string,
  {
    priority = 40,
    narinfo = () => undefined,
    file = () => undefined,
  }: {
    priority?: number | (() => number);
    narinfo?: (hash: string) => Answer;
    file?: (path: string, init: UpstreamRequest) => Answer;
  } = {},
): Double {
  const [narinfos, requests, headers]: [string[], string[], Record<string, string>[]] = [[], [], []];
  return {
    url: `https://${name}`,
    narinfos,
    requests,
    headers,
    narinfo: async (hash, signal, sent = {}) => {
      narinfos.push(hash);
      headers.push(sent);
      const ended = Promise.withResolvers<never>();
      ended.promise.catch(() => {});
      signal?.addEventListener("abort", () => ended.reject(signal.reason));
      return Promise.race([narinfo(hash), ended.promise]);
    },
    request: async (path, init) => {
      if (path === "nix-cache-info") {
        const value = typeof priority === "number" ? priority : priority();
        return new Response(`StoreDir: /nix/store\nPriority: ${value}\n`);
      }
      requests.push(path);
      headers.push(init.headers ?? {});
      const body = await file(path, init);
      return body === undefined ? undefined : new Response(body);
    },
  };
}

function fails(options: ConstructorParameters<typeof UpstreamFailure>[1] = {}): () => never {
  return () => {
    throw new UpstreamFailure("it failed", options);
  };
}

/** With priorities known. @param random the same whenever it is asked; waits are half of what they may be with 0 */
async function open(doubles: readonly Double[], random = 0) {
  const clock = { ms: 1_000_000 };
  const errors: string[] = [];
  const sleeps: (() => void)[] = [];
  const host = {
    now: () => clock.ms,
    random: () => random,
    sleep: () => new Promise<void>((over) => sleeps.push(over)),
  };
  const upstreams = createUpstreams(doubles, { host, onError: (message) => errors.push(message) });
  await settled();
  return { upstreams, clock, errors, sleeps };
}

/** Lets everything run that waits for nothing but its turn. */
const settled = () => Bun.sleep(1);

describe("the upstream whose narinfo counts", () => {
  test("is the one with the lowest priority, and of equals the first", async () => {
    const late = Promise.withResolvers<string>();
    const low = double("low", { priority: 10, narinfo: () => late.promise });
    const others = ["a", "b"].map((name) => double(name, { narinfo: () => NARINFO(name) }));
    const { upstreams, sleeps } = await open([...others, low]);
    const answer = upstreams.narinfo(HASH, WAY);
    await settled();
    expect(sleeps.length).toBe(1);
    late.resolve(NARINFO("low"));
    expect(await answer).toBe(NARINFO("low"));
    expect(upstreams.status().map(({ priority }) => priority)).toEqual([40, 40, 10]);
    const { upstreams: equal } = await open(others);
    expect(await equal.narinfo(HASH, WAY)).toBe(NARINFO("a"));
  });

  test("is the one that has it when a better one is out beyond its head start", async () => {
    const slow = double("slow", { priority: 1, narinfo: () => new Promise(() => {}) });
    const quick = double("quick", { narinfo: () => NARINFO("quick") });
    const { upstreams, sleeps } = await open([slow, quick]);
    const answer = upstreams.narinfo(HASH, WAY);
    await settled();
    sleeps[0]?.();
    expect(await answer).toBe(NARINFO("quick"));
  });

  test("gives the NAR; others are asked when it has lost it, or nobody knows", async () => {
    const a = double("a", { file: (path) => `a ${path}` });
    const b = double("b", { narinfo: () => NARINFO("b"), file: (path) => (path.includes("b") ? "b" : "") });
    const { upstreams } = await open([a, b]);
    await upstreams.narinfo(HASH, WAY);
    const body = async (found: Response | string) => (typeof found === "string" ? found : found.text());
    expect(await body(await upstreams.nar("nar/b.nar", WAY))).toBe("b");
    expect(a.requests).toEqual([]);
    expect(await body(await upstreams.nar("nar/c.nar", WAY))).toBe("a nar/c.nar");
    expect(b.requests).toEqual(["nar/b.nar"]);
  });

  test("is asked alone for what its narinfo names elsewhere", async () => {
    const a = double("a", { file: () => "wrong" });
    const b = double("b", {
      narinfo: () => NARINFO("b").replace("nar/", "files/"),
      file: (path) => (path === "files/b.nar" ? "right" : undefined),
    });
    const { upstreams } = await open([a, b]);
    const url = /^URL: (.*)$/m.exec((await upstreams.narinfo(HASH, WAY)) ?? "")?.[1] ?? "";
    const [, id = "", path = ""] = /^from\/([0-9a-f]{8})\/(.*)$/.exec(url) ?? [];
    expect(await ((await upstreams.from(id, path, WAY)) as Response).text()).toBe("right");
    expect(await upstreams.from("00000000", path, WAY)).toBe("absent");
    expect(a.requests).toEqual([]);
  });
});

describe("questions", () => {
  test("of many clients are one, which goes on when a client hangs up", async () => {
    const late = Promise.withResolvers<string>();
    const a = double("a", { narinfo: () => late.promise });
    const { upstreams } = await open([a]);
    const gone = new AbortController();
    const answers = [
      upstreams.narinfo(HASH, { ...WAY, signal: gone.signal }),
      ...Array.from({ length: 100 }, () => upstreams.narinfo(HASH, WAY)),
    ];
    gone.abort();
    late.resolve(NARINFO("a"));
    expect(new Set(await Promise.all(answers))).toEqual(new Set([NARINFO("a")]));
    expect(a.narinfos).toEqual([HASH]);
  });

  test("are answered from what is kept: an hour what was found, a minute what was absent", async () => {
    const a = double("a", { narinfo: (hash) => (hash === HASH ? NARINFO("a") : undefined) });
    const { upstreams, clock } = await open([a]);
    const ask = async () => [
      await upstreams.narinfo(HASH, WAY),
      await upstreams.narinfo(storeHash("absent"), WAY),
    ];
    for (const [ms, asked] of [
      [0, 2],
      [59_999, 2],
      [1, 3],
      [3_539_999, 4],
      [1, 5],
    ] as const) {
      clock.ms += ms;
      expect(await ask()).toEqual([NARINFO("a"), undefined]);
      expect([clock.ms, a.narinfos.length]).toEqual([clock.ms, asked]);
    }
  });

  test("that an upstream failed to answer, or was not asked, are not kept as absent", async () => {
    for (const status of [undefined, 500]) {
      const sick = double("sick", { narinfo: fails({ status }) });
      const well = double("well");
      const { upstreams } = await open([sick, well]);
      for (let i = 0; i < 5; i++) expect(await upstreams.narinfo(HASH, WAY)).toBeUndefined();
      expect(well.narinfos.length).toBe(5);
    }
  });

  test("whose kept answer came from an upstream that is left alone are asked anew", async () => {
    const a = double("a", { narinfo: () => NARINFO("a"), file: fails() });
    const b = double("b", { priority: 50, narinfo: () => NARINFO("b") });
    const { upstreams } = await open([a, b]);
    expect(await upstreams.narinfo(HASH, WAY)).toBe(NARINFO("a"));
    expect(await upstreams.nar("nar/a.nar", WAY)).toBe("failed");
    expect(await upstreams.narinfo(HASH, WAY)).toBe(NARINFO("b"));
  });
});

describe("an upstream that fails", () => {
  test("without an answer is left alone at once, and what waits for it is answered", async () => {
    const sick = double("sick", {
      narinfo: (hash) => (hash === HASH ? new Promise(() => {}) : fails({ timedOut: true })()),
    });
    const { upstreams, errors } = await open([sick, double("well")]);
    const waiting = upstreams.narinfo(HASH, WAY);
    expect(await upstreams.narinfo(storeHash("late"), WAY)).toBeUndefined();
    expect(await waiting).toBeUndefined();
    for (let i = 0; i < 100; i++) await upstreams.narinfo(storeHash(`${i}`), WAY);
    expect(sick.narinfos.length).toBe(2);
    expect(errors).toEqual(["it failed; left alone for 1 s"]);
    expect(upstreams.status()[0]).toMatchObject({ state: "down", failures: 1, lastError: "it failed" });
  });

  test("that is left alone costs no question: the answer is there at once, also when all are", async () => {
    const down = double("down", { narinfo: fails({ timedOut: true }) });
    const { upstreams } = await open([down, double("down-too", { narinfo: fails({ timedOut: true }) })]);
    expect(await upstreams.narinfo(HASH, WAY)).toBeUndefined();
    // Not even a promise: each would be counted as a question to the network.
    for (let i = 0; i < 3; i++) expect(upstreams.narinfo(storeHash(`absent ${i}`), WAY)).toBeUndefined();
    expect(down.narinfos).toEqual([HASH]);
  });

  test("is asked again for the same once, and left alone when three in a row have failed", async () => {
    const bad = storeHash("bad");
    const sick = double("sick", {
      narinfo: (hash) => (hash === HASH ? NARINFO("sick") : fails({ status: 500 })()),
    });
    const { upstreams, clock } = await open([sick]);
    for (let i = 0; i < 10; i++) {
      expect(await upstreams.narinfo(bad, WAY)).toBeUndefined();
      expect(await upstreams.narinfo(HASH, WAY)).toBe(NARINFO("sick"));
      clock.ms += 3_600_000;
    }
    expect(sick.narinfos.filter((hash) => hash === bad).length).toBe(20);
    for (let i = 0; i < 10; i++) await upstreams.narinfo(bad, WAY);
    expect(sick.narinfos.filter((hash) => hash === bad).length).toBe(26);
  });

  test("by saying 429 is left alone at once, as long as it asks for within bounds", async () => {
    const sick = double("sick", { narinfo: fails({ status: 429, retryAfter: "120" }) });
    const { upstreams, clock } = await open([sick]);
    await upstreams.narinfo(HASH, WAY);
    expect(sick.narinfos.length).toBe(1);
    expect(upstreams.status()[0]?.retryAt).toBe(clock.ms + 120_000);
  });

  test("comes back by a probe in the background, which no client waits for", async () => {
    let probes = 0;
    let dead = true;
    const sick = double("sick", {
      priority: () => {
        probes++;
        if (dead) fails()();
        return 7;
      },
      narinfo: () => (dead ? fails()() : NARINFO("sick")),
    });
    const { upstreams, clock, errors } = await open([sick]);
    const ask = async () => {
      const answer = await upstreams.narinfo(HASH, WAY);
      await settled();
      return answer;
    };
    expect([probes, upstreams.status()[0]?.state]).toEqual([1, "down"]);
    clock.ms += 499;
    expect([await ask(), probes]).toEqual([undefined, 1]);
    clock.ms += 1;
    expect([await ask(), probes]).toEqual([undefined, 2]);
    clock.ms += 1000;
    dead = false;
    // Nobody asks, so nobody probes.
    await settled();
    expect(probes).toBe(2);
    expect([await ask(), probes]).toEqual([undefined, 3]);
    expect([await ask(), probes]).toEqual([NARINFO("sick"), 3]);
    expect(upstreams.status()[0]).toMatchObject({
      state: "up",
      priority: 7,
      lastError: null,
      retryAt: null,
      failures: 2,
      hits: 1,
    });
    expect(errors.at(-1)).toBe("upstream https://sick: it answers again");
  });

  test("in the hands of a client that hangs up has not failed", async () => {
    const client = new AbortController();
    const a = double("a", {
      file: () => {
        client.abort();
        return fails()();
      },
    });
    const { upstreams, errors } = await open([a, double("b")]);
    await expect(upstreams.nar("nar/a.nar", { ...WAY, signal: client.signal })).rejects.toThrow();
    expect([upstreams.status()[0]?.state, errors]).toEqual(["up", []]);
  });
});

describe("circles", () => {
  const HOP = "f".repeat(16);
  const came = (...hops: string[]) => ({
    ...WAY,
    headers: new Headers({ via: hops.map((id) => `1.1 nixcache-${id}`).join(", ") }),
  });

  test("a request says which way it came, and one that came through us goes no further", async () => {
    const a = double("a");
    const { upstreams } = await open([a]);
    await upstreams.narinfo(HASH, came(HOP));
    const via = a.headers[0]?.via ?? "";
    expect(via).toMatch(/^1\.1 nixcache-f{16}, 1\.1 nixcache-[0-9a-f]{16}$/);
    const back = { ...WAY, headers: new Headers({ via }) };
    expect(await upstreams.narinfo(HASH, back)).toBeUndefined();
    expect(await upstreams.nar("nar/x.nar", back)).toBe("absent");
    expect(await upstreams.attached("log/x.drv", back)).toBe("absent");
    expect(await upstreams.narinfo(HASH, came(HOP, HOP, HOP, HOP, HOP))).toBeUndefined();
    expect([a.narinfos.length, a.requests.length]).toEqual([1, 0]);
  });

  test("what is absent for another cache's question is asked again for a client", async () => {
    const a = double("a");
    const { upstreams } = await open([a]);
    await upstreams.narinfo(HASH, came(HOP));
    await upstreams.narinfo(HASH, WAY);
    await upstreams.narinfo(HASH, WAY);
    expect(a.narinfos.length).toBe(2);
  });

  test("two that ask each other at the same moment do not wait for each other", async () => {
    type Pair = { [name in "a" | "b"]?: ReturnType<typeof createUpstreams> };
    const pair: Pair = {};
    const asks = (name: keyof Pair) =>
      Object.assign(double(name), {
        narinfo: async (hash: string, _: AbortSignal, sent: Record<string, string>) => {
          // Both have their client's question before the other's arrives.
          await settled();
          return pair[name]?.narinfo(hash, { ...WAY, headers: new Headers(sent) });
        },
      });
    pair.a = (await open([asks("b")])).upstreams;
    pair.b = (await open([asks("a")], 0.5)).upstreams;
    expect(await Promise.all([pair.a.narinfo(HASH, WAY), pair.b.narinfo(HASH, WAY)])).toEqual([
      undefined,
      undefined,
    ]);
  });
});

test("of a client's headers only those go on that the answer depends on", async () => {
  const a = double("a");
  const { upstreams } = await open([a]);
  const headers = new Headers({
    range: "bytes=5-",
    authorization: "Basic c2VjcmV0",
    cookie: "secret",
    "accept-encoding": "br",
    host: "localhost",
  });
  await upstreams.nar("nar/a.nar", { ...WAY, headers });
  await upstreams.attached("log/a?b.drv", { ...WAY, headers });
  expect(a.headers.map(({ via, ...others }) => others)).toEqual([
    { range: "bytes=5-" },
    { "accept-encoding": "br" },
  ]);
  expect(a.requests).toEqual(["nar/a.nar", "log/a%3Fb.drv"]);
});
