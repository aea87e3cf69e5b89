/**
 * Upstream caches behind ours: all are asked at once for a narinfo, the first good answer in the order that the person
 * has given counts, and NARs come from where their narinfo came from. One that fails is left alone for a while and
 * counts as having nothing (rule 8), so that it costs clients nothing.
 */
import { type Host, randomId } from "../host.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { parseNarInfo } from "../nar/narinfo.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import type { PublicKey } from "../nar/signing-key.ts";
import type { Upstream } from "../upstream/client.ts";
import { firstAnswer } from "./first-answer.ts";
import { type FoundNarInfo, NarInfoCache } from "./narinfo-cache.ts";
import { UpstreamPeer, type UpstreamStatus } from "./upstream-peer.ts";
import { formatVia, hopsOf, mayPassOn } from "./via.ts";

/** What of a client's request matters to upstreams. */
export type ClientRequest = Pick<Request, "method" | "headers" | "signal">;

export interface Upstreams {
  /** The text of a narinfo; undefined when none has it. An upstream that fails counts as not having it (rule 8). */
  narinfo(storeHash: string, request: ClientRequest): string | undefined | Promise<string | undefined>;
  /**
   * A NAR by its path, of the first upstream; it may be one of another that clients remember from when that was the first.
   * `absent` when every upstream said so, `failed` when one could not say. This and what follows reject when the client
   * has hung up.
   */
  nar(path: string, request: ClientRequest): Promise<Response | "absent" | "failed">;
  /** A file that a narinfo has named, by the id that it got there, its path and query; `absent` for any other. */
  from(id: string, path: string, request: ClientRequest): Promise<Response | "absent" | "failed">;
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
  /** 32 bytes that nobody else knows, and that stay as they are: clients remember what is made of them for a month. */
  readonly key: Uint8Array;
  /** By which upstreams sign. Without any, any narinfo is as good as another. */
  readonly trusted: readonly PublicKey[];
}

/** Where a person gives none: that of https://cache.nixos.org. */
const USUAL_PRIORITY = 40;

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

/**
 * Looks in the background whether each upstream is there.
 * @param upstreams in the order in which they are asked, but for priorities that the person has given: lower comes first.
 * What an upstream says of its own priority does not count, or any could put itself before the others.
 */
export function createUpstreams(
  upstreams: readonly Upstream[],
  { host, onError, key, trusted }: UpstreamsOptions,
): Upstreams {
  const ownId = randomId(host);
  const priority = ({ priority = USUAL_PRIORITY }: Upstream) => priority;
  const ranked = upstreams.toSorted((a, b) => priority(a) - priority(b));
  const peerOf = new Map(
    ranked.map((upstream, rank) => {
      return [upstream, new UpstreamPeer(upstream, { host, onError, key, isFirst: rank === 0 })] as const;
    }),
  );
  const peers = [...peerOf.values()];
  for (const peer of peers) void peer.probe();
  const kept = new NarInfoCache(host);
  /** By store hash and way: two caches that are each other's upstream would wait for each other's question. */
  const questions = new Map<string, Promise<string | undefined>>();

  let asked = 0;

  async function ask(storeHash: string, hops: readonly string[]): Promise<string | undefined> {
    if (++asked % COLLECT_AFTER_QUESTIONS === 0) Bun.gc(true);
    const via = formatVia(hops, ownId);
    let failed = 0;
    const found = await firstAnswer<FoundNarInfo>(
      peers.map(async (peer) => {
        try {
          const text = await peer.narinfo(storeHash, via);
          return text === undefined ? undefined : { text, peer, isSigned: isTaken(text, trusted) };
        } catch {
          // The peer has told; it counts as not having it.
          failed++;
        }
        return undefined;
      }),
      host,
      ({ isSigned }) => isSigned,
    );
    // What nobody has signed is kept where nobody else can have it signed, and absent is what all say so; on the way of
    // another cache's question that may be otherwise than on another.
    if (found?.isSigned || (found && failed === 0)) kept.keep(storeHash, found);
    else if (found === undefined && failed === 0 && hops.length === 0) kept.keep(storeHash, "absent");
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
    nar: (path, client) => request(peers, path, client, RANGES),
    from(id, path, client) {
      const order = peers.filter((peer) => peer.hasNamed(id, path));
      return request(order, path, client, RANGES);
    },
    attached: (path, client) =>
      request(peers, path.split("/").map(encodeURIComponent).join("/"), client, ENCODINGS),
    status: () => upstreams.flatMap((upstream) => peerOf.get(upstream)?.status ?? []),
    close() {
      for (const peer of peers) peer.close();
    },
  };
}

/** Whether a client takes it that trusts these keys. */
function isTaken(narinfo: string, trusted: readonly PublicKey[]): boolean {
  if (trusted.length === 0) return true;
  const info = parseNarInfo(narinfo);
  return verifyNarInfo(info, trusted) || isContentAddressed(info);
}
