/** The real network: the one place that calls fetch, looks names up, and knows where this process listens. */
import { networkInterfaces } from "node:os";
import { reachOf } from "./address.ts";
import type { Names, Web } from "./egress.ts";

/** As long as fetch itself keeps what it has looked up, in milliseconds. */
const LOOKED_UP_MS = 30_000;

/** Names that are kept. */
const MOST_NAMES = 1_000;

const lookedUp = new Map<
  string,
  { readonly until: number; readonly addresses: Promise<readonly string[]> }
>();

const ownPorts = new Set<number>();

/** Tells that this process listens at a port, from now on until it ends. */
export function listensAt(port: number): void {
  ownPorts.add(port);
}

const names: Names = {
  lookup(name) {
    const now = performance.now();
    const known = lookedUp.get(name);
    if (known !== undefined && now < known.until) return known.addresses;
    if (lookedUp.size >= MOST_NAMES) lookedUp.clear();
    const addresses = askDns(name);
    lookedUp.set(name, { until: now + LOOKED_UP_MS, addresses });
    addresses.catch(() => lookedUp.delete(name));
    return addresses;
  },
  isProxied: () => false,
  mayPin: true,
  isHere,
  isOwn: (address, port) => ownPorts.has(port) && isHere(address),
};

/** Without proxies. */
export const DIRECT_WEB: Web = { fetch: (url, init) => fetch(url, init), names };

async function askDns(name: string): Promise<readonly string[]> {
  let found: readonly { readonly address: string }[] = [];
  try {
    found = await Bun.dns.lookup(name);
  } catch {
    // What is thrown says no more than that there is none.
  }
  if (found.length > 0) return found.map(({ address }) => address);
  throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: "ENOTFOUND" });
}

function isHere(address: string): boolean {
  if (reachOf(address) === "loopback") return true;
  return Object.values(networkInterfaces()).some((of) => of?.some((own) => own.address === address));
}
