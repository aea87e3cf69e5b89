/** A publish record as the page shows it. Everything in it was written by whoever published. */
import type { Generation } from "../../cache/index-layer.ts";
import { isStoreHash, STORE_DIR, STORE_HASH_LENGTH } from "../../nar/store-path.ts";
import type { Publish, Root } from "./client/data.ts";

/** A system flake has some hundred outputs. */
const MAX_ROOTS = 200;

/** The longest text that is shown of one field. */
const MAX_TEXT = 300;

export function publishOf({ name, record }: Generation): Publish {
  const time = Date.parse(record.time);
  const run = webUrl(record.run);
  const revision = record.revision === undefined ? null : short(record.revision);
  const roots = Object.entries(record.roots);
  return {
    id: name,
    time: Number.isNaN(time) ? null : time,
    source: short(record.source),
    tool: short(record.tool),
    system: record.system === undefined ? null : short(record.system),
    revision,
    revisionUrl: revision === null ? null : commitUrl(run, revision),
    runUrl: run,
    entries: record.entries,
    roots: roots
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .slice(0, MAX_ROOTS)
      .map(rootOf),
    rootCount: roots.length,
  };
}

function rootOf([attribute, path]: [string, string]): Root {
  const start = STORE_DIR.length + 1;
  const hash = path.slice(start, start + STORE_HASH_LENGTH);
  const isStorePath = path.startsWith(`${STORE_DIR}/`) && isStoreHash(hash);
  return { attribute: short(attribute), path: short(path), hash: isStorePath ? hash : null };
}

/** An address that a link may have: http and https alone, so that no click runs a script. */
function webUrl(text: string | undefined): string | null {
  const url = text === undefined || text.length > 2000 ? null : URL.parse(text);
  return url !== null && (url.protocol === "https:" || url.protocol === "http:") ? url.href : null;
}

/** The commit's page: where GitHub has it beside a run of Actions. */
function commitUrl(run: string | null, revision: string): string | null {
  const [, repository] = /^(https?:\/\/[^/@]+\/[^/?#]+\/[^/?#]+)\/actions\/runs\/\d+/.exec(run ?? "") ?? [];
  return repository !== undefined && /^[0-9a-f]{40,64}$/.test(revision)
    ? `${repository}/commit/${revision}`
    : null;
}

function short(text: string): string {
  return text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text;
}
