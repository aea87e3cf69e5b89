/** The lines that make a client use a server. They are copied into configuration, so nothing else gets into them. */

export interface ClientLines {
  readonly nixConf: string;
  readonly nixos: string;
}

/** A public key as Nix writes it. Keys are what publishers have stated, and one could hold further settings. */
const KEY = /^[\w.+@/-]+:[A-Za-z0-9+/]{43}=$/;

export function usableKeys(keys: readonly string[]): string[] {
  return keys.filter((key) => KEY.test(key));
}

/** @param url the server's address as its clients reach it; @param keys usable ones */
export function clientLines(url: string, keys: readonly string[]): ClientLines {
  const conf = [`extra-substituters = ${url}`];
  const nixos = ["nix.settings = {", `  substituters = [ "${url}" ];`];
  if (keys.length > 0) {
    conf.push(`extra-trusted-public-keys = ${keys.join(" ")}`);
    nixos.push("  trusted-public-keys = [", ...keys.map((key) => `    "${key}"`), "  ];");
  }
  return { nixConf: conf.join("\n"), nixos: [...nixos, "};"].join("\n") };
}
