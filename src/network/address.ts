/**
 * Who can be reached at an IP address: everybody, or only those who are inside of something.
 * https://www.iana.org/assignments/iana-ipv4-special-registry
 * https://www.iana.org/assignments/iana-ipv6-special-registry
 */
import { BlockList, isIP } from "node:net";

/** From the widest to the narrowest. Reserved addresses, at which no public server can be, count as private. */
export const REACHES = ["public", "private", "link-local", "loopback"] as const;

export type Reach = (typeof REACHES)[number];

/** The first list that has the address counts. */
const RANGES: readonly (readonly [Reach, readonly string[]])[] = [
  ["loopback", ["0.0.0.0/8", "127.0.0.0/8", "::/128", "::1/128"]],
  ["link-local", ["169.254.0.0/16", "fe80::/10"]],
  [
    "private",
    [
      ...["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"],
      // Carriers' networks, networks of tests, protocols of the IETF.
      ...["100.64.0.0/10", "198.18.0.0/15", "192.0.0.0/24", "64:ff9b:1::/48", "100::/64"],
      // Multicast, and what was never given to anybody.
      ...["224.0.0.0/4", "240.0.0.0/4", "ff00::/8"],
    ],
  ],
];

const LISTS = RANGES.map(([reach, subnets]) => {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [base = "", bits] = subnet.split("/");
    list.addSubnet(base, Number(bits), familyOf(base));
  }
  return [reach, list] as const;
});

/** An IPv4 address within an IPv6 one: mapped, compatible, behind NAT64, and behind 6to4. */
const EMBEDDED: readonly (readonly [prefix: readonly number[], at: number])[] = [
  [[0, 0, 0, 0, 0, 0xffff], 6],
  [[0, 0, 0, 0, 0xffff, 0], 6],
  [[0, 0, 0, 0, 0, 0], 6],
  [[0x64, 0xff9b, 0, 0, 0, 0], 6],
  [[0x2002], 1],
];

/** @param address of either family, without brackets */
export function reachOf(address: string): Reach {
  const plain = address.replace(/%.*$/, "");
  const family = familyOf(plain);
  const reach = LISTS.find(([, list]) => list.check(plain, family))?.[0] ?? "public";
  const inner = family === "ipv6" && reach === "public" ? embedded(plain) : undefined;
  return inner === undefined ? reach : reachOf(inner);
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 4 ? "ipv4" : "ipv6";
}

function embedded(address: string): string | undefined {
  const groups = groupsOf(address);
  const [, at] = EMBEDDED.find(([prefix]) => prefix.every((group, index) => groups[index] === group)) ?? [];
  if (at === undefined) return undefined;
  const [high = 0, low = 0] = groups.slice(at);
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join(".");
}

/** The eight groups of an IPv6 address. */
function groupsOf(address: string): number[] {
  // The URL parser writes an IPv4 address at the end as two groups.
  const text = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [head = [], tail = []] = text
    .split("::")
    .map((half) => half.split(":").filter(Boolean))
    .map((half) => half.map((group) => Number.parseInt(group, 16)));
  return [...head, ...new Array(8 - head.length - tail.length).fill(0), ...tail];
}

/**
 * The address that the host of a URL is, without brackets, where it is one. URLs know every spelling of an IPv4 address
 * (`0`, `127.1`, `0x7f000001`), and `localhost` and names that end in it are this machine, whatever DNS says.
 * @param hostname as `URL` has it
 */
export function literalAddress(hostname: string): string | undefined {
  const name = hostname.replace(/\.+$/, "").toLowerCase();
  if (name === "localhost" || name.endsWith(".localhost")) return "127.0.0.1";
  const address = name.replace(/^\[(.*)\]$/, "$1");
  return isIP(address) === 0 ? undefined : address;
}
