/**
 * Upstream caches behind ours: all are asked at once for a narinfo, the first good answer in the order of their
 * priorities counts, and NARs come from where their narinfo came from. One that fails is left alone for a while and
 * counts as having nothing (rule 8), so that it costs clients nothing.
 */
import { type Host, randomId } from "../host.ts";
import type { Upstream } from "../upstream/client.ts";
import { firstAnswer } from "./first-answer.ts";
import { Lru } from "./lru.ts";
import { type FoundNarInfo, NarInfoCache } from "./narinfo-cache.ts";
import { UpstreamPeer, type UpstreamStatus } from "./upstream-peer.ts";
import { formatVia, hopsOf, mayPassOn } from "./via.ts";

/** What of a client's request matters to upstreams. */
export type ClientRequest = Pick<Request, "method" | "headers" | "signal">;

export interface Upstreams {
  /** The text of a narinfo; undefined when none has it. An upstream that fails counts as not having it (rule 8). */
  narinfo(storeHash: string, request: ClientRequest): string | undefined | Promise<string | undefined>;
  /**
   * A NAR by its path and query: `absent` when every upstream said so, `failed` when one could not say. This and
   * what follows reject when the client has hung up.
   */
  nar(path: string, request: ClientRequest): Promise<Response | "absent" | "failed">;
  /** Any file of the upstream with this id, as `narinfo` names it. */
  from(upstreamId: string, path: string, request: ClientRequest): Promise<Response | "absent" | "failed">;
  /** A file that stands beside narinfos, by its path, escapes decoded. It may have a Content-Encoding that the client has said it accepts. */
  attached(path: string, request: ClientRequest): Promise<Response | "absent" | "failed">;
  /** In the order of the configuration. */
  status(): readonly UpstreamStatus[];
  /** Ends what waits for upstreams. */
  close(): void;
}

export interface UpstreamsOptions {
  readonly host: Host;
  readonly onError: (message: string) => void;
}

/** NARs of which it is known where they are: more than the closure of any system. About 4 MiB. */
const KNOWN_NARS = 32_768;

/**
 * The engine's collector counts answers from the network late: left to itself, a stream of questions took 290 MiB
 * where they hold 110. A collection after so many takes some 30 ms.
 */
const COLLECT_AFTER_QUESTIONS = 2_000;

/** What goes through of requests and answers. */
interface Pass {
  /** Headers of the client's request. */
  readonly names: readonly string[];
  /** Whether the answer may have a Content-Encoding. */
  readonly encoded: boolean;
}

const RANGES: Pass = { names: ["range", "if-range"], encoded: false };
const ENCODINGS: Pass = { names: ["accept-encoding"], encoded: true };

/** Asks each upstream for its priority in the background. */
export function createUpstreams(
  upstreams: readonly Upstream[],
  { host, onError }: UpstreamsOptions,
): Upstreams {
  const ownId = randomId(host);
  const peers = upstreams.map((upstream) => new UpstreamPeer(upstream, { host, onError }));
  for (const peer of peers) void peer.probe();
  const kept = new NarInfoCache(host);
  const narsOf = new Lru<UpstreamPeer>(KNOWN_NARS);
  /** By store hash and way: two caches that are each other's upstream would wait for each other's question. */
  const questions = new Map<string, Promise<string | undefined>>();

  // The sort is stable: the order of the configuration decides among equals.
  const ranked = () => peers.toSorted((a, b) => (a.priority === b.priority ? 0 : a.priority - b.priority));

  let asked = 0;

  async function ask(storeHash: string, hops: readonly string[]): Promise<string | undefined> {
    if (++asked % COLLECT_AFTER_QUESTIONS === 0) Bun.gc(true);
    const via = formatVia(hops, ownId);
    let absent = 0;
    const found = await firstAnswer<FoundNarInfo>(
      ranked().map(async (peer) => {
        try {
          const narinfo = await peer.narinfo(storeHash, via);
          if (narinfo !== undefined) return { ...narinfo, peer };
          absent++;
        } catch {
          // The peer has told; it counts as not having it.
        }
        return undefined;
      }),
      host,
    );
    if (found !== undefined) {
      narsOf.set(found.url, found.peer);
      kept.keep(storeHash, found);
    } else if (absent === peers.length && hops.length === 0) {
      // What is absent on the way of another cache's question may be found on another way.
      kept.keep(storeHash, "absent");
    }
    return found?.text;
  }

  async function request(
    order: readonly UpstreamPeer[],
    path: string,
    { method, headers, signal }: ClientRequest,
    pass: Pass,
  ): Promise<Response | "absent" | "failed"> {
    const hops = hopsOf(headers.get("via"));
    if (!mayPassOn(hops, ownId)) return "absent";
    const passed = pass.names.flatMap((name) => {
      const value = headers.get(name);
      return value === null ? [] : [[name, value] as const];
    });
    const init = {
      method: method === "HEAD" ? "HEAD" : "GET",
      signal,
      encoded: pass.encoded,
      headers: { ...Object.fromEntries(passed), via: formatVia(hops, ownId) },
    } as const;
    let failed = false;
    for (const peer of order) {
      try {
        const response = await peer.request(path, init);
        if (response !== undefined) return response;
      } catch (error) {
        if (signal.aborted) throw error;
        failed = true;
      }
    }
    return failed ? "failed" : "absent";
  }

  return {
    narinfo(storeHash, { headers }) {
      if (peers.length === 0) return undefined;
      const known = kept.get(storeHash);
      if (known !== undefined) return known === "absent" ? undefined : known.text;
      // Nobody to ask, and nobody to wait for.
      if (!peers.some((peer) => peer.isReached())) return undefined;
      const hops = hopsOf(headers.get("via"));
      if (!mayPassOn(hops, ownId)) return undefined;
      const key = [storeHash, ...hops].join(" ");
      const running = questions.get(key);
      if (running !== undefined) return running;
      // Not bound to the client: others may wait for it too, and its answer is kept.
      const question = ask(storeHash, hops).finally(() => questions.delete(key));
      questions.set(key, question);
      return question;
    },
    nar(path, client) {
      const known = narsOf.get(path);
      const order = known === undefined ? ranked() : [known, ...ranked().filter((peer) => peer !== known)];
      return request(order, path, client, RANGES);
    },
    from(upstreamId, path, client) {
      const order = peers.filter(({ id }) => id === upstreamId);
      return request(order, path, client, RANGES);
    },
    attached: (path, client) =>
      request(ranked(), path.split("/").map(encodeURIComponent).join("/"), client, ENCODINGS),
    status: () => peers.map(({ status }) => status),
    close() {
      for (const peer of peers) peer.close();
    },
  };
}
