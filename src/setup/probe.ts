/** Who answers where `nixcache serve` should: it, somebody else, or nobody. */
import { connectionProblem, connectionReason } from "../connection.ts";
import { systemCode } from "../errors.ts";

/** What `/_status` says of one cache. */
export interface ServedStatus {
  readonly name: string;
  /** ISO 8601, or null before the first refresh. */
  readonly refreshed: string | null;
  readonly error: string | null;
}

export type Answerer =
  /** With a hint where somebody is there, who cannot be talked to. */
  | { readonly kind: "nobody"; readonly reason: string; readonly hint?: string }
  /** What the answer was that a binary cache, or we, would not give. */
  | { readonly kind: "stranger"; readonly found: string }
  /** Another binary cache, or our own behind a proxy that shows no status. */
  | { readonly kind: "cache" }
  | {
      readonly kind: "nixcache";
      readonly version: string;
      /** Seconds between two refreshes. */
      readonly ttl: number;
      /** Whether Nix is answered: not before an index was loaded once. */
      readonly ready: boolean;
      readonly caches: readonly ServedStatus[];
    };

/** Answers of a stranger may be of any length. Bytes. */
const MAX_BYTES = 1024 * 1024;

/** One request; redirects come back as they are. */
export type Ask = (url: string, init: { signal: AbortSignal }) => Promise<Response>;

/** @param url without a slash at the end. @param signal must fire at some time */
export async function probe(url: string, ask: Ask, signal: AbortSignal): Promise<Answerer> {
  let info: { status: number; text: string };
  try {
    info = await get(`${url}/nix-cache-info`, ask, signal);
  } catch (error) {
    const hint = signal.aborted ? undefined : connectionProblem(error)?.hint;
    return { kind: "nobody", reason: reasonOf(error, signal), ...(hint !== undefined && { hint }) };
  }
  const isCache = info.status === 200 && /^StoreDir: /m.test(info.text);
  const status = await get(`${url}/_status`, ask, signal).catch(() => undefined);
  const ours = status?.status === 200 ? readStatus(status.text) : undefined;
  if (ours !== undefined) return { kind: "nixcache", ready: isCache, ...ours };
  if (isCache) return { kind: "cache" };
  const first = info.text.split("\n", 1)[0]?.slice(0, 80) ?? "";
  return { kind: "stranger", found: `${info.status} ${JSON.stringify(first)}` };
}

function reasonOf(error: unknown, signal: AbortSignal): string {
  if (signal.aborted) return "no answer in time";
  return systemCode(error) === "ECONNREFUSED" || systemCode(error) === "ConnectionRefused"
    ? "nothing listens there"
    : connectionReason(error);
}

async function get(url: string, ask: Ask, signal: AbortSignal): Promise<{ status: number; text: string }> {
  const response = await ask(url, { signal });
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of (response.body ?? []) as AsyncIterable<Uint8Array>) {
    chunks.push(chunk);
    size += chunk.length;
    if (size > MAX_BYTES) break;
  }
  return { status: response.status, text: Buffer.concat(chunks).toString("utf8") };
}

function readStatus(text: string): { version: string; ttl: number; caches: ServedStatus[] } | undefined {
  let status: Record<string, unknown>;
  try {
    status = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { version, caches, index_ttl: ttl } = status ?? {};
  if (typeof version !== "string" || typeof ttl !== "number" || !Array.isArray(caches)) return undefined;
  const textOf = (value: unknown) => (typeof value === "string" ? value : null);
  return {
    version,
    ttl,
    caches: caches.map((cache: Record<string, unknown> | null) => ({
      name: textOf(cache?.repo) ?? "",
      refreshed: textOf(cache?.index_refreshed),
      error: textOf(cache?.index_error),
    })),
  };
}
