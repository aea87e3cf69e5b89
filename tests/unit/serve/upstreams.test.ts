/** Several upstreams behind the server: doubles that answer when a test says, and a clock that a test moves. */
import { describe, expect, test } from "bun:test";
import { formatNarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, type PublicKey, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { route } from "../../../src/serve/route.ts";
import { createUpstreams, type Upstreams } from "../../../src/serve/upstreams.ts";
import type { Upstream, UpstreamRequest } from "../../../src/upstream/client.ts";
import { UpstreamFailure } from "../../../src/upstream/failure.ts";
import { storeHash } from "../../support/protocol.ts";

const HASH = storeHash("u");
const NARINFO = (of: string) => `StorePath: /nix/store/${HASH}-u\nURL: nar/${of}.nar\n`;
const KEY = new Uint8Array(32).fill(7);
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

/** With what they say of themselves known. @param random the same whenever it is asked; waits are half of what they may be with 0 */
async function open(doubles: readonly Double[], random = 0, trusted: readonly PublicKey[] = []) {
  const clock = { ms: 1_000_000 };
  const errors: string[] = [];
  const sleeps: (() => void)[] = [];
  const host = {
    now: () => clock.ms,
    random: () => random,
    sleep: () => new Promise<void>((over) => sleeps.push(over)),
  };
  const upstreams = createUpstreams(doubles, {
    ...{ host, onError: (message: string) => errors.push(message) },
    key: KEY,
    trusted,
  });
  await settled();
  return { upstreams, clock, errors, sleeps };
}

const urlIn = (narinfo: string | undefined) => /^URL: (.*)$/m.exec(narinfo ?? "")?.[1] ?? "";

const textOf = async (found: Response | string) => (typeof found === "string" ? found : found.text());

/** As the handler asks for what stands in a narinfo. */
function get(upstreams: Upstreams, url = ""): Promise<Response | string> {
  const found = route("GET", `/${url}`);
  if (found.kind === "from") return upstreams.from(found.id, found.path, WAY);
  return found.kind === "nar" ? upstreams.nar(found.path, WAY) : Promise.resolve(found.kind);
}

/** Lets everything run that waits for nothing but its turn. */
const settled = () => Bun.sleep(1);

describe("the upstream whose narinfo counts", () => {
  test("S12: is the first of the order that the person has given, whatever they say of themselves", async () => {
    const late = Promise.withResolvers<string>();
    const first = double("first", { narinfo: () => late.promise });
    const others = ["a", "b"].map((name) => double(name, { priority: 0, narinfo: () => NARINFO(name) }));
    const { upstreams, sleeps } = await open([first, ...others]);
    const answer = upstreams.narinfo(HASH, WAY);
    await settled();
    expect(sleeps.length).toBe(1);
    late.resolve(NARINFO("first"));
    expect(await answer).toBe(NARINFO("first"));
    expect(upstreams.status().map(({ priority }) => priority)).toEqual([40, 0, 0]);
  });

  test("S12: is another where the person has given it a priority, and of equals the first", async () => {
    const [a, b, c, d] = (["a", "b", "c", "d"] as const).map((name) =>
      double(name, { narinfo: () => NARINFO(name) }),
    );
    const given = [a, { ...b, priority: 41 }, { ...c, priority: 39 }, d] as Double[];
    const { upstreams } = await open(given);
    const answer = await upstreams.narinfo(HASH, WAY);
    expect(answer).toBe(NARINFO("c"));
    expect(upstreams.status().map(({ url }) => url)).toEqual(
      ["a", "b", "c", "d"].map((name) => `https://${name}`),
    );
  });

  test("is the one that has it when a better one is out beyond its head start", async () => {
    const slow = double("slow", { narinfo: () => new Promise(() => {}) });
    const quick = double("quick", { narinfo: () => NARINFO("quick") });
    const { upstreams, sleeps } = await open([slow, quick]);
    const answer = upstreams.narinfo(HASH, WAY);
    await settled();
    sleeps[0]?.();
    expect(urlIn(await answer)).toEndWith("/nar/quick.nar");
  });

  test("S9: gives the NAR, also where another names the same for a path of its own", async () => {
    const evil = storeHash("e");
    const narinfo = (hash: string) => (hash === HASH || hash === evil ? NARINFO("x") : undefined);
    for (const order of [
      ["a", "b"],
      ["b", "a"],
    ]) {
      const pair = order.map((name) => {
        const has = name === "a" ? HASH : evil;
        return double(name, {
          narinfo: (hash) => (hash === has ? narinfo(hash) : undefined),
          file: (path) => `${name} ${path}`,
        });
      });
      for (const first of [HASH, evil]) {
        const { upstreams } = await open(pair);
        const asked = first === HASH ? [HASH, evil] : [evil, HASH];
        const urls = new Map<string, string>();
        for (const hash of asked) urls.set(hash, urlIn(await upstreams.narinfo(hash, WAY)));
        expect(await textOf(await get(upstreams, urls.get(HASH)))).toBe("a nar/x.nar");
        expect(await textOf(await get(upstreams, urls.get(evil)))).toBe("b nar/x.nar");
      }
    }
  });

  test("of what clients remember under nar/ the others give what the first has not", async () => {
    const a = double("a");
    const b = double("b", { file: () => "b" });
    const { upstreams } = await open([a, b]);
    expect(await textOf(await upstreams.nar("nar/b.nar", WAY))).toBe("b");
    expect([a.requests, b.requests]).toEqual([["nar/b.nar"], ["nar/b.nar"]]);
  });

  test("S7: is asked alone for what its narinfo names, and for nothing else", async () => {
    const a = double("a", { file: () => "wrong" });
    const b = double("b", {
      narinfo: () => NARINFO("b").replace("nar/b.nar", "files/b.nar?of=u"),
      file: (path) => (path === "files/b.nar?of=u" ? "right" : "wrong"),
    });
    const { upstreams } = await open([a, b]);
    const url = urlIn(await upstreams.narinfo(HASH, WAY));
    expect(await textOf(await get(upstreams, url))).toBe("right");
    const [, id = "", path = ""] = /^from\/([0-9a-f]{32})\/(.*)$/.exec(url) ?? [];
    const digest = new Bun.CryptoHasher("sha256").update("https://b").digest("hex");
    for (const [otherId, otherPath] of [
      [id, "files/c.nar?of=u"],
      [id, "files/b.nar"],
      [id, "files/b.nar?of=u&x=y"],
      [id, "files/b.nar?of=v"],
      [id, "nix-cache-info"],
      ["0".repeat(32), path],
      [digest.slice(0, 32), path],
      [digest.slice(0, 8), path],
      [`${id}0`, path],
      ["", path],
    ] as const)
      expect([otherPath, await upstreams.from(otherId, otherPath, WAY)]).toEqual([otherPath, "absent"]);
    expect([a.requests, b.requests]).toEqual([[], ["files/b.nar?of=u"]]);
  });
});

const SIGNER = generateSecretKey("up-1", new Uint8Array(32).fill(1));

/** A narinfo as clients take it, signed by the key where it says so. */
function wholeNarInfo(of: string, signature?: string): string {
  const info = parseNarInfo(
    `${NARINFO(of)}Compression: none\nNarHash: sha256:${"0".repeat(52)}\nNarSize: 1\nReferences: \n`,
  );
  const sigs = signature === undefined ? [] : [signature === "good" ? signNarInfo(info, SIGNER) : signature];
  return formatNarInfo({ ...info, sigs });
}

describe("S12: with keys of upstreams", () => {
  const KEYS = [publicKeyOf(SIGNER)];

  test.each<[string, string | undefined]>([
    ["no signature", undefined],
    [
      "one by a key that nobody trusts",
      signNarInfo({ storePath: "x", narHash: "y", narSize: 1, references: [] }, SIGNER).replace(
        "up-1",
        "evil-1",
      ),
    ],
    ["a forged one", `up-1:${"A".repeat(86)}==`],
  ])("a narinfo with %s does not hide a signed one", async (_, signature) => {
    const late = Promise.withResolvers<string>();
    const evil = double("evil", { priority: 0, narinfo: () => wholeNarInfo("evil", signature) });
    const good = double("good", { narinfo: () => late.promise });
    const { upstreams, sleeps } = await open([evil, good], 0, KEYS);
    const answer = upstreams.narinfo(HASH, WAY);
    await settled();
    // There is nothing to wait for but all of them.
    expect(sleeps.length).toBe(0);
    late.resolve(wholeNarInfo("good", "good"));
    const text = (await answer) ?? "";
    expect(parseNarInfo(text).sigs).toHaveLength(1);
    expect(urlIn(text)).toMatch(/^from\/[0-9a-f]{32}\/nar\/good\.nar$/);
  });

  test("one that nobody signed is given where nobody else has the path, and kept only then", async () => {
    const only = double("only", { narinfo: () => wholeNarInfo("only") });
    const { upstreams } = await open([only, double("other")], 0, KEYS);
    expect(urlIn(await upstreams.narinfo(HASH, WAY))).toBe("nar/only.nar");
    await upstreams.narinfo(HASH, WAY);
    expect(only.narinfos).toHaveLength(1);
    const sick = double("sick", { narinfo: fails({ status: 500 }) });
    const { upstreams: unsure } = await open([only, sick], 0, KEYS);
    expect(urlIn(await unsure.narinfo(HASH, WAY))).toBe("nar/only.nar");
    await unsure.narinfo(HASH, WAY);
    expect(only.narinfos).toHaveLength(3);
  });

  test("what is no signature is left out: Nix may stop at it, beside a good one too", async () => {
    const odd = double("odd", {
      narinfo: () => wholeNarInfo("odd", "good").replace(/^Sig/m, "Sig: up-1:AAAA\nSig"),
    });
    const { upstreams } = await open([odd], 0, KEYS);
    expect(await upstreams.narinfo(HASH, WAY)).toBe(wholeNarInfo("odd", "good"));
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
    const b = double("b", { narinfo: () => NARINFO("b") });
    const { upstreams } = await open([a, b]);
    expect(await upstreams.narinfo(HASH, WAY)).toBe(NARINFO("a"));
    expect(await upstreams.nar("nar/a.nar", WAY)).toBe("failed");
    expect(urlIn(await upstreams.narinfo(HASH, WAY))).toEndWith("/nar/b.nar");
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
