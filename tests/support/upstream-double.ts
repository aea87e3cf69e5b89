/** A double of an upstream cache: it gives files that it was told of, and fails when it shall. */
import type { Upstream } from "../../src/upstream/client.ts";
import { startWire } from "./wire.ts";

/** `refuses` answers 503 to everything; `breaks` breaks the bodies of NARs off in the middle. */
export type UpstreamMood = "answers" | "refuses" | "breaks";

export interface UpstreamDouble {
  readonly url: string;
  mood: UpstreamMood;
  close(): Promise<void>;
}

/** @param files by path, with the leading slash */
export async function startUpstreamDouble(files: ReadonlyMap<string, Buffer>): Promise<UpstreamDouble> {
  const { host, close } = await startWire(async ({ method, target }, answer) => {
    const file = double.mood === "refuses" ? undefined : files.get(target);
    const status = double.mood === "refuses" ? 503 : file === undefined ? 404 : 200;
    await answer.write(`HTTP/1.1 ${status} ${status}\r\nContent-Length: ${file?.length ?? 0}\r\n\r\n`);
    if (file === undefined || method === "HEAD") return;
    const breaks = double.mood === "breaks" && target.startsWith("/nar/");
    await answer.write(breaks ? file.subarray(0, file.length / 2) : file);
    if (breaks) answer.end();
  });
  const double: UpstreamDouble = { url: `http://${host}`, mood: "answers", close };
  return double;
}

/** An upstream in memory: what `narinfo` says, and the nix-cache-info without which no "no" of its counts. */
export function memoryUpstream(url: string, narinfo: Upstream["narinfo"]): Upstream {
  const info = "StoreDir: /nix/store\nPriority: 40\n";
  return {
    url,
    narinfo,
    request: async (path) => (path === "nix-cache-info" ? new Response(info) : undefined),
  };
}
