/** Whether what Nix remembers of the cache keeps it from what the cache has now. */
import { entryOf } from "../cache/entry.ts";
import type { IndexReader } from "../cache/index-reader.ts";
import { isContentAddressed } from "../nar/content-address.ts";
import { verifyNarInfo } from "../nar/signature.ts";
import { type PublicKey, parsePublicKey } from "../nar/signing-key.ts";
import type { NixConfiguration } from "../nix/configuration.ts";
import {
  isSameCache,
  type NarInfoMemory,
  type RememberedPath,
  readNarInfoMemory,
} from "../nix/narinfo-cache.ts";
import { isRoot, nixCacheFolder, ROOT_HOME } from "../nix/user.ts";
import { type Found, note, ok, skipped, wrong } from "./check.ts";
import type { Facts } from "./facts.ts";
import { age, paths } from "./words.ts";

/** Remembered paths whose signatures are checked at most: each takes some 0.4 ms. */
const MAX_CHECKED = 200;

export interface Stale {
  /** Store paths that Nix remembers without a signature that it trusts, and the cache has with one. */
  readonly unsigned: readonly string[];
  /** Store paths that Nix remembers as missing, and the cache has. */
  readonly missed: readonly string[];
  /** When the last of each was asked for, in milliseconds since 1970. */
  readonly unsignedAt: number;
  readonly missedAt: number;
}

/** What of `remembered` the cache answers otherwise now. @param keys that Nix trusts; none where it wants none */
export function findStale(
  remembered: readonly RememberedPath[],
  view: Pick<IndexReader, "line">,
  keys: readonly PublicKey[],
): Stale {
  const names = new Set(keys.map(({ name }) => name));
  const unsigned: string[] = [];
  const missed: string[] = [];
  let [unsignedAt, missedAt, checked] = [0, 0, 0];
  for (const { storeHash, present, sigs, at } of remembered) {
    const trusts = sigs.some((sig) => names.has(sig.slice(0, Math.max(0, sig.indexOf(":")))));
    if (present && (trusts || keys.length === 0 || checked >= MAX_CHECKED)) continue;
    const line = view.line(storeHash);
    if (line === undefined) continue;
    const { info } = entryOf(line);
    if (!present) {
      missed.push(info.storePath);
      missedAt = Math.max(missedAt, at);
    } else if (!isContentAddressed(info)) {
      checked++;
      if (!verifyNarInfo(info, keys)) continue;
      unsigned.push(info.storePath);
      unsignedAt = Math.max(unsignedAt, at);
    }
  }
  return { unsigned, missed, unsignedAt, missedAt };
}

interface Asker {
  readonly name: "Nix" | "the Nix daemon";
  readonly folder: string;
  readonly configuration: NixConfiguration;
  /** Whether what this user says on the command line counts. */
  readonly obeys: boolean;
}

/** @param rootHome where the daemon keeps what it remembers */
export async function checkRemembered(
  facts: Pick<Facts, "url" | "host" | "env" | "index" | "configuration" | "trust" | "version">,
  rootHome = ROOT_HOME,
): Promise<Found> {
  const { url, host } = facts;
  const { view } = await facts.index();
  const now = host.now();
  let unread: { file: string; reason: string } | undefined;
  for (const asker of await askers(facts, rootHome)) {
    const { configuration, folder } = asker;
    const { positiveTtlMs, negativeTtlMs } = configuration;
    const memory = readNarInfoMemory(folder, url, {
      found: now - positiveTtlMs,
      missed: now - negativeTtlMs,
    });
    if (memory.kind === "unreadable") unread = memory;
    if (memory.kind !== "read") continue;
    const keys = wantsSignatures(configuration, url) ? keysOf(configuration.trustedPublicKeys) : [];
    const found = tellStale(findStale(memory.paths, view, keys), memory, asker, now, url);
    if (found !== undefined) return found;
  }
  if (unread === undefined) return ok(`Nix remembers nothing of ${url} that keeps it from what is there now`);
  const { file, reason } = unread;
  if (isRoot()) return note(`what Nix remembers of ${url} cannot be read: ${reason}`);
  return skipped(`what the Nix daemon remembers of ${url} is in ${file}, which only root reads`);
}

/** Whose memory counts: the daemon fetches what is built, this user what is copied. */
async function askers(facts: Parameters<typeof checkRemembered>[0], rootHome: string): Promise<Asker[]> {
  const { env } = facts;
  const version = env.NIX_CACHE_HOME ? await facts.version().catch(() => undefined) : undefined;
  const configuration = await facts.configuration();
  const own = { name: "Nix", folder: nixCacheFolder(env, version), configuration, obeys: true } as const;
  const trust = await facts.trust();
  if (trust.kind === "no-daemon") return [own];
  const folder = `${rootHome}/.cache/nix`;
  const daemon =
    trust.kind === "trusted"
      ? ({ ...own, name: "the Nix daemon", folder } as const)
      : ({ name: "the Nix daemon", folder, configuration: trust.daemon, obeys: false } as const);
  return [daemon, own];
}

function tellStale(
  { unsigned, missed, unsignedAt, missedAt }: Stale,
  { file }: NarInfoMemory & { kind: "read" },
  { name, configuration, obeys }: Asker,
  now: number,
  url: string,
): Found | undefined {
  const mend = (setting: string) =>
    obeys
      ? `Run the command that fails once with --option ${setting} 0, or remove ${file}.`
      : `Remove ${file} as root, which is no loss.`;
  if (unsigned.length > 0) {
    const left = age(unsignedAt + configuration.positiveTtlMs - now);
    return wrong(
      `${name} remembers ${paths(unsigned.length)} of ${url} without a signature by a key that it trusts, for up to ${left} more, such as ${unsigned[0]}`,
      mend("narinfo-cache-positive-ttl"),
    );
  }
  if (missed.length === 0) return undefined;
  const left = age(missedAt + configuration.negativeTtlMs - now);
  return wrong(
    `${name} remembers that ${url} lacks ${paths(missed.length)} that it has now, for up to ${left} more, such as ${missed[0]}`,
    mend("narinfo-cache-negative-ttl"),
  );
}

function wantsSignatures({ requireSigs, substituters }: NixConfiguration, url: string): boolean {
  const isTrusted = (other: string) => isSameCache(other, url) && /[?&]trusted=(?:true|1)(?:&|$)/.test(other);
  return requireSigs && !substituters.some(isTrusted);
}

/** Nix goes by those that it can read as well. */
function keysOf(texts: readonly string[]): PublicKey[] {
  return texts.flatMap((text) => {
    try {
      return [parsePublicKey(text)];
    } catch {
      return [];
    }
  });
}
