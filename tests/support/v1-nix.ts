/** Paths of a real Nix store as nixcache-oci exports them: `nix-store --dump | xz -1`, and a narinfo around it. */
import { join } from "node:path";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { lines } from "./derivation.ts";
import { hashPart } from "./http-cache.ts";
import type { TestNix } from "./nix.ts";
import type { V1Path } from "./v1-cache.ts";

interface PathInfo {
  readonly path: string;
  readonly narHash: string;
  readonly narSize: number;
  readonly references?: readonly string[];
  readonly deriver?: string;
  readonly signatures?: readonly string[];
}

/** @returns the public key */
export async function makeV1Key(nix: TestNix): Promise<string> {
  const key = join(nix.folder, "v1-key");
  await nix.run("nix-store", ["--generate-binary-cache-key", "v1-e2e-1", key, `${key}.pub`]);
  return (await Bun.file(`${key}.pub`).text()).trim();
}

/** Signs the paths in the store, by the key of `makeV1Key`. */
export async function exportV1(nix: TestNix, paths: readonly string[]): Promise<V1Path[]> {
  await nix.run("nix", ["store", "sign", "--key-file", join(nix.folder, "v1-key"), ...paths]);
  const printed = JSON.parse(await nix.run("nix", ["path-info", "--json", ...paths]));
  // A list of paths, or from 2.19 on what is known by path.
  const infos: PathInfo[] = Array.isArray(printed)
    ? printed
    : Object.entries(printed as Record<string, object>).map(
        ([path, info]) => ({ path, ...info }) as PathInfo,
      );
  const exported: V1Path[] = [];
  for (const info of infos) {
    const file = join(nix.folder, "exported.nar.xz");
    await nix.run("sh", ["-c", 'nix-store --dump "$1" | xz -1 > "$2"', "-", nix.realPath(info.path), file]);
    const [fileHash] = lines(await nix.run("nix", ["hash", "file", "--type", "sha256", "--base32", file]));
    exported.push(entryOf(info, await Bun.file(file).bytes(), fileHash ?? ""));
  }
  return exported;
}

function entryOf(info: PathInfo, content: Uint8Array<ArrayBuffer>, fileHash: string): V1Path {
  const baseName = (path: string) => path.slice(path.lastIndexOf("/") + 1);
  const hash = hashPart(info.path);
  const digest = digestOf(content);
  if (encodeBase32(Buffer.from(digest.slice(7), "hex")) !== fileHash)
    throw new Error(`nix hash file says ${fileHash} of ${digest}`);
  const references = (info.references ?? []).map(baseName).join(" ");
  const text = [
    `StorePath: ${info.path}`,
    `URL: nar/${hash}.nar.xz`,
    "Compression: xz",
    `FileHash: sha256:${fileHash}`,
    `FileSize: ${content.length}`,
    `NarHash: ${info.narHash}`,
    `NarSize: ${info.narSize}`,
    ...(references === "" ? [] : [`References: ${references}`]),
    ...(info.deriver ? [`Deriver: ${baseName(info.deriver)}`] : []),
    ...(info.signatures ?? []).map((signature) => `Sig: ${signature}`),
  ];
  return {
    hash,
    oldUrl: `nar/${hash}.nar.xz`,
    newUrl: `nar/${fileHash}.nar.xz`,
    content,
    digest,
    fields: {
      name: baseName(info.path).slice(33),
      narinfo: `${text.join("\n")}\n`,
      nar_digest: digest,
      nar_size: content.length,
      added: "2026-04-24T14:20:10Z",
    },
  };
}

/** A server that gives the narinfos as nixcache-oci had them, and for all else what another server has. */
export function startOldNarInfos(
  paths: readonly V1Path[],
  url: string,
): { url: string; close(): Promise<void> } {
  const narinfos = new Map(paths.map(({ hash, fields }) => [`/${hash}.narinfo`, fields.narinfo]));
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch(request) {
      const { pathname } = new URL(request.url);
      const narinfo = narinfos.get(pathname);
      return narinfo === undefined
        ? fetch(url + pathname, { method: request.method })
        : new Response(narinfo);
    },
  });
  return { url: `http://127.0.0.1:${server.port}`, close: () => server.stop(true) };
}
