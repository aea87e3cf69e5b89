/** Whether a proxy stands in the way. */
import { formatReference, isLoopback } from "../oci/reference.ts";
import { proxyVariable, withoutProxyForLoopback } from "../system/proxy.ts";
import { type Check, note, wrong } from "./check.ts";
import type { Facts } from "./facts.ts";

/** Nothing where no proxy is asked for anything. */
export function proxyChecks({ url, env, reference }: Pick<Facts, "url" | "env" | "reference">): Check[] {
  const forNix = proxyVariable(url, env, "curl");
  if (forNix !== undefined && isLoopback(new URL(url).host)) {
    const found = wrong(
      `Nix asks ${url} through the proxy that ${forNix} names, which cannot reach this machine`,
      "Set no_proxy=127.0.0.1,localhost,::1 as well, also where the Nix daemon has its variables.",
    );
    return [{ name: "proxy", run: async () => found }];
  }
  const own = { ...env, ...withoutProxyForLoopback(env) };
  const forRegistry =
    reference.kind === "registry"
      ? proxyVariable(`${reference.scheme}://${reference.host}`, own, "bun")
      : undefined;
  const through = [
    ...(forNix === undefined ? [] : [`Nix asks ${url} through the proxy that ${forNix} names`]),
    ...(forRegistry === undefined
      ? []
      : [`${formatReference(reference)} is read through the proxy that ${forRegistry} names`]),
  ];
  return through.length === 0 ? [] : [{ name: "proxy", run: async () => note(through.join("; ")) }];
}
