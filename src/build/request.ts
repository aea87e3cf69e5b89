/** Outputs that somebody wants, and how a publish record names them. */
import { existsSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import type { Source } from "../nix/evaluate.ts";
import { redactUrls } from "../redact.ts";
import type { Discovery } from "./discovery.ts";
import { DEFAULT_OUTPUTS } from "./selector.ts";

export interface OutputsRequest {
  readonly source: Source;
  /** As `discover` takes them. */
  readonly outputs?: readonly string[];
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
  /** Whether attributes go by `FLAKE#ATTRIBUTE`, since there are several flakes. */
  readonly named?: boolean;
}

/** The folder of a flake or file on this machine; undefined for one elsewhere. */
export function localFolder(source: Source, cwd: string): string | undefined {
  if ("file" in source) return dirname(resolve(cwd, source.file));
  const path = source.flake.replace(/^path:/, "").replace(/\?.*$/, "");
  return path.includes(":") || !existsSync(join(resolve(cwd, path), "flake.nix"))
    ? undefined
    : resolve(cwd, path);
}

/** A folder's name as Nix takes it for one: a bare word would be looked up in the flake registry. */
export function flakeReference(text: string, cwd: string): string {
  const isBare = !/^[./]/.test(text) && !text.includes(":");
  return isBare && existsSync(join(cwd, text, "flake.nix")) ? `./${text}` : text;
}

/**
 * Which outputs were asked for, in words that stay the same from run to run, wherever the checkout is.
 *
 * @param top the top folder of the checkout that local sources are in
 */
export function describeRequests(
  requests: readonly OutputsRequest[],
  cwd: string,
  top: string | undefined,
): string {
  return requests
    .map((request) => describe(request, cwd, top))
    .sort()
    .join("; ");
}

function describe(
  { source, outputs, include, exclude, named }: OutputsRequest,
  cwd: string,
  top?: string,
): string {
  const local = localFolder(source, cwd);
  const place = (path: string) => (top === undefined ? path : `./${relative(top, resolve(cwd, path))}`);
  const name =
    "file" in source ? place(source.file) : local === undefined ? redactUrls(source.flake) : place(local);
  const wanted = [...(outputs ?? ("flake" in source ? DEFAULT_OUTPUTS : []))].sort();
  if (named) return wanted.map((attribute) => `${name}#${attribute}`).join("; ");
  const words = [
    `${"flake" in source ? "flake" : "file"} ${name}`,
    ...(wanted.length > 0 ? [`: ${wanted.join(" ")}`] : []),
    ...(include?.length ? [`, only ${[...include].sort().join(" ")}`] : []),
    ...(exclude?.length ? [`, without ${[...exclude].sort().join(" ")}`] : []),
  ];
  return words.join("");
}

/**
 * What was found for several requests, as one; of the same name the first counts.
 *
 * @param others what is named by other words
 */
export function joinDiscoveries(
  found: readonly (readonly [OutputsRequest, Discovery])[],
  others: Discovery = { targets: [], missing: [], broken: [], skipped: [] },
): Discovery {
  const prefixed = found.map(([{ source, named }, discovery]) => {
    const prefix = named && "flake" in source ? `${redactUrls(source.flake)}#` : "";
    return [prefix, discovery] as const;
  });
  const all = <T extends { readonly attribute: string }>(
    list: (discovery: Discovery) => readonly T[],
  ): T[] => {
    const byName = new Map<string, T>();
    for (const [prefix, discovery] of [...prefixed, ["", others] as const]) {
      for (const item of list(discovery)) {
        const attribute = prefix + item.attribute;
        if (!byName.has(attribute)) byName.set(attribute, { ...item, attribute });
      }
    }
    return [...byName.values()];
  };
  return {
    targets: all(({ targets }) => targets),
    missing: all(({ missing }) => missing),
    broken: all(({ broken }) => broken),
    skipped: all(({ skipped }) => skipped),
  };
}
