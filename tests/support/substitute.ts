/** A second Nix for tests: an empty store that takes paths from a cache, checking signatures. */
import { lines } from "./derivation.ts";
import type { TestNix } from "./nix.ts";

export interface Client {
  /** The root of its chroot store. */
  readonly root: string;
  /** `nix copy --from URL`. @throws with what Nix said */
  copy(url: string, paths: readonly string[]): Promise<void>;
  /** `nix-store --realise` with the cache as the substituter. @throws with what Nix said */
  realise(url: string, paths: readonly string[]): Promise<void>;
  /** `nix-store --verify --check-contents`. @throws when anything in the store is wrong */
  verify(): Promise<void>;
  /** The valid paths of the store, sorted. */
  paths(): Promise<string[]>;
}

/** @param trustedKey a public key as `name:base64` */
export async function openClient(nix: TestNix, trustedKey: string): Promise<Client> {
  const root = await nix.emptyStore();
  // Nix remembers what a cache had; each client shall ask afresh.
  const env = { NIX_REMOTE: root, XDG_CACHE_HOME: `${root}-cache` };
  const strict = ["--option", "require-sigs", "true", "--option", "trusted-public-keys", trustedKey];
  return {
    root,
    async copy(url, paths) {
      await nix.run("nix", ["copy", "--from", url, ...strict, ...paths], { env });
    },
    async realise(url, paths) {
      await nix.run("nix-store", ["--realise", "--option", "substituters", url, ...strict, ...paths], {
        env,
      });
    },
    async verify() {
      await nix.run("nix-store", ["--verify", "--check-contents"], { env });
    },
    async paths() {
      return lines(await nix.run("nix", ["path-info", "--all"], { env })).sort();
    },
  };
}

/** What nixcache must know to publish from a test's Nix store: NIX_REMOTE and the like, nothing else. */
export function storeVariables(nix: TestNix): Record<string, string> {
  return Object.fromEntries(Object.entries(nix.env).filter(([name]) => name.startsWith("NIX_")));
}
