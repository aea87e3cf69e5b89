/** Whether we answer where Nix asks, and how old what we answer from is. */
import { resolve } from "node:path";
import type { CacheReference } from "../oci/reference.ts";
import { type Check, note, ok, skipped, wrong } from "./check.ts";
import type { Facts } from "./facts.ts";
import type { Answerer } from "./probe.ts";
import { age } from "./words.ts";

/** Refreshes that may fail in a row before anybody should know. */
const MISSED_REFRESHES = 3;

export function serveChecks(facts: Facts, version: string): Check[] {
  return [
    { name: "serve", run: async () => checkServe(await facts.answerer(), facts, version) },
    { name: "index-age", run: async () => checkAge(await facts.answerer(), facts) },
  ];
}

function checkServe(answerer: Answerer, facts: Facts, version: string) {
  const { url, serveCommand, cacheName } = facts;
  switch (answerer.kind) {
    case "nobody":
      return wrong(
        `nobody answers at ${url}: ${answerer.reason}`,
        answerer.hint ?? `Start it: ${serveCommand}`,
      );
    case "stranger":
      return wrong(
        `somebody else answers at ${url}: ${answerer.found}`,
        "End that program, or choose another port for nixcache serve and nixcache use alike, with --port.",
      );
    case "cache":
      return note(`a binary cache answers at ${url}, and does not say that it is nixcache`);
    case "nixcache": {
      const names = answerer.caches.map(({ name }) => name);
      if (!names.some((name) => isSame(name, facts.reference, cacheName))) {
        return wrong(
          `nixcache at ${url} serves ${names.join(", ")}, not ${cacheName}`,
          `Run: ${serveCommand}`,
        );
      }
      if (!answerer.ready) {
        return wrong(
          `nixcache at ${url} has never read its cache, so Nix is not answered`,
          "See what is said of the registry; nixcache tries again by itself.",
        );
      }
      if (answerer.version !== version) {
        return note(
          `nixcache ${answerer.version} answers at ${url}, this is ${version}`,
          "Restart nixcache serve.",
        );
      }
      return ok(`nixcache ${answerer.version} answers at ${url}`);
    }
  }
}

function checkAge(answerer: Answerer, { host, reference, cacheName }: Facts) {
  if (answerer.kind !== "nixcache") return skipped("nixcache is not serving");
  const cache = answerer.caches.find(({ name }) => isSame(name, reference, cacheName)) ?? answerer.caches[0];
  if (cache === undefined || cache.refreshed === null) return skipped("no index was ever loaded");
  const ageMs = host.now() - Date.parse(cache.refreshed);
  const text = `what serve answers from was read ${age(ageMs)} ago`;
  if (ageMs <= answerer.ttl * 1000 * MISSED_REFRESHES) return ok(text);
  const reason = cache.error === null ? "" : `: ${cache.error}`;
  return wrong(`${text}${reason}`, "See what is said of the registry; nixcache tries again by itself.");
}

/** A folder that serve was given with a relative name cannot be told from another one: that counts as the same. */
function isSame(name: string, reference: CacheReference, cacheName: string): boolean {
  if (reference.kind === "registry") return name === cacheName;
  return !name.startsWith("/") ? name.startsWith(".") : resolve(name) === resolve(reference.path);
}
