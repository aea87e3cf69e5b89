/**
 * A double of a registry, of which only the ways are made up: Debian's docker-registry, behind a server that answers
 * as was recorded from another one (`registry-ways.ts`) where the two differ.
 */

import { startRegistry } from "./registry.ts";
import type { DoubleOptions } from "./registry-double.ts";
import type { RoundRegistry } from "./registry-round.ts";

export type Ways = Pick<DoubleOptions, "atMissingBlob" | "lowersTags" | "ignoresRange">;

const MANIFEST = /^(\/v2\/.+\/manifests\/)([^/]+)$/;

/** @param name of the registry whose ways these are */
export async function startWithWays(name: string, ways: Ways): Promise<RoundRegistry> {
  const registry = await startRegistry();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    async fetch(raw) {
      const { pathname, search, host } = new URL(raw.url);
      const [, before = "", reference] = MANIFEST.exec(pathname) ?? [];
      const isLowered = ways.lowersTags && reference !== undefined;
      const path = isLowered ? before + reference.toLowerCase() : pathname;
      const headers = new Headers(raw.headers);
      headers.delete("host");
      // Neither Gitea, nor zot, nor olareg knows conditions.
      headers.delete("if-none-match");
      if (ways.ignoresRange) headers.delete("range");
      const body = await raw.bytes();
      const answer = await fetch(`http://${registry.host}${path}${search}`, {
        method: raw.method,
        headers,
        ...(raw.method === "PUT" || body.length > 0 ? { body } : {}),
        redirect: "manual",
        decompress: false,
      } as RequestInit);
      if (raw.method === "PUT" && reference !== undefined && answer.status === 400 && ways.atMissingBlob)
        return ways.atMissingBlob("");
      const given = new Headers(answer.headers);
      const location = given.get("location");
      if (location !== null)
        given.set("location", location.replace(`http://${registry.host}`, `http://${host}`));
      if (ways.ignoresRange) given.delete("accept-ranges");
      return new Response(answer.body, { status: answer.status, headers: given });
    },
  });
  return {
    name,
    host: `127.0.0.1:${server.port}`,
    user: undefined,
    collectGarbage: async () => void (await registry.collectGarbage({ untagged: true })),
    close: async () => {
      await server.stop(true);
      await registry.close();
    },
  };
}
