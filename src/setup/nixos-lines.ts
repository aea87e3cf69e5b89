/** What a NixOS configuration says to use a cache. */
import { CACHE_PACKAGE } from "../oci/github-name.ts";
import { type CacheReference, formatReference, GHCR_HOST } from "../oci/reference.ts";

/** @param url where serve answers; @param keys `name:base64` */
export function nixosLines(reference: CacheReference, url: string, keys: readonly string[]): string {
  const [key, ...others] = keys;
  const { port } = new URL(url);
  const module = [
    "# With the module of nixcache's flake, nixosModules.default, which runs `nixcache serve` as a service:",
    "services.nixcache-proxy = {",
    "  enable = true;",
    `  ${which(reference)}`,
    `  port = ${port || 80};`,
    ...(key === undefined ? [] : [`  publicKey = ${string(key)};`]),
    ...(others.length === 0 ? [] : [`  publicKeys = ${list(others)};`]),
    "};",
  ];
  const settings = [
    "# Or, where `nixcache serve` is run otherwise:",
    "nix.settings = {",
    `  extra-substituters = ${list([url])};`,
    ...(keys.length === 0 ? [] : [`  extra-trusted-public-keys = ${list(keys)};`]),
    "  fallback = true;",
    "};",
  ];
  return [...module, "", ...settings].join("\n");
}

function which(reference: CacheReference): string {
  const name = formatReference(reference);
  const prefix = `${GHCR_HOST}/`;
  const suffix = `/${CACHE_PACKAGE}`;
  const short = name.slice(prefix.length, -suffix.length);
  const isShort = name.startsWith(prefix) && name.endsWith(suffix) && /^[^/]+\/[^/]+$/.test(short);
  return isShort ? `repo = ${string(short)};` : `caches = ${list([name])};`;
}

function list(texts: readonly string[]): string {
  return `[ ${texts.map(string).join(" ")} ]`;
}

function string(text: string): string {
  return `"${text.replace(/["\\]|\$(?=\{)/g, "\\$&")}"`;
}
