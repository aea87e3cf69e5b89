/**
 * A client that knows what every answer must be, and compares each byte of it.
 *
 * Requests are made on connections of their own unless `keepAlive`, so that the server sees them end.
 */
import { connect } from "node:net";
import { parseNarInfo } from "../../src/nar/narinfo.ts";
import type { CliServer } from "./cli.ts";
import { downloadAll, hashPart } from "./http-cache.ts";
import type { TestNix } from "./nix.ts";
import type { Choices } from "./seed-choices.ts";

export interface KnownPath {
  /** `/HASH.narinfo` and `/HASH.ls`. */
  readonly narinfoUrl: string;
  readonly listingUrl: string;
  readonly narUrl: string;
  readonly narinfo: string;
  /** Names that are no UTF-8 have none. */
  readonly listing: string | undefined;
  /** The compressed NAR. */
  readonly nar: Buffer;
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** What a server that is known to be right says of paths. Their NARs are compared with what Nix has recorded. */
export async function learnPaths(
  server: CliServer,
  paths: readonly string[],
  nix: TestNix,
): Promise<KnownPath[]> {
  const served = await downloadAll(server, paths, nix);
  return Promise.all(
    paths.map(async (path) => {
      const { narinfo = "", file } = served.get(path) ?? {};
      const narUrl = `/${parseNarInfo(narinfo).url}`;
      const nar = Buffer.from(await (await server.get(narUrl)).bytes());
      if (new Bun.CryptoHasher("sha256").update(nar).digest("hex") !== file)
        throw new Error(`${narUrl} has changed`);
      const [narinfoUrl, listingUrl] = [".narinfo", ".ls"].map((ending) => `/${hashPart(path)}${ending}`);
      const listed = await server.get(listingUrl ?? "");
      const listing = listed.ok ? await listed.text() : undefined;
      return { narinfoUrl: narinfoUrl ?? "", listingUrl: listingUrl ?? "", narUrl, narinfo, listing, nar };
    }),
  );
}

export class CheckedClient {
  readonly #url: string;
  readonly #keepAlive: boolean;
  /** Told of bytes of NARs that have come, before more are read: whoever waits here reads slowly. */
  readonly #came: (bytes: number) => Promise<void> | void;

  constructor(
    url: string,
    options: { keepAlive?: boolean; came?: (bytes: number) => Promise<void> | void } = {},
  ) {
    this.#url = url;
    this.#keepAlive = options.keepAlive ?? false;
    this.#came = options.came ?? (() => {});
  }

  /** A request without its checks. */
  ask(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(this.#url + path, { ...init, keepalive: this.#keepAlive });
  }

  /** Fails unless the answer is 200 and just this text, or 404 where there is none. */
  async text(path: string, expected: string | undefined): Promise<void> {
    if (expected === undefined) return this.absent(path);
    const answer = await this.ask(path);
    const text = await answer.text();
    if (answer.status !== 200 || text !== expected)
      throw new WrongAnswer("GET", path, answer, text.slice(0, 300));
  }

  async absent(path: string): Promise<void> {
    const answer = await this.ask(path);
    const text = await answer.text();
    if (answer.status !== 404) throw new WrongAnswer("GET", path, answer, text.slice(0, 300));
  }

  async head({ narUrl, nar }: KnownPath): Promise<void> {
    const answer = await this.ask(narUrl, { method: "HEAD" });
    const length = answer.headers.get("content-length");
    if (answer.status !== 200 || length !== String(nar.length))
      throw new WrongAnswer("HEAD", narUrl, answer, length);
  }

  /** The whole NAR or a range of it. */
  async nar({ narUrl, nar }: KnownPath, range?: ByteRange): Promise<void> {
    const { offset, length } = range ?? { offset: 0, length: nar.length };
    const headers: Record<string, string> = range ? { range: `bytes=${offset}-${offset + length - 1}` } : {};
    const answer = await this.ask(narUrl, { headers });
    if (answer.status !== (range ? 206 : 200))
      throw new WrongAnswer("GET", narUrl, answer, await answer.text());
    await this.body(answer, narUrl, nar.subarray(offset, offset + length));
  }

  /** Fails unless a body is whole and just these bytes. */
  async body(answer: Response, path: string, expected: Buffer): Promise<void> {
    let got = 0;
    for await (const chunk of answer.body ?? []) {
      if (!expected.subarray(got, got + chunk.length).equals(chunk))
        throw new WrongAnswer("GET", path, answer, `other bytes within ${chunk.length} from ${got}`);
      got += chunk.length;
      await this.#came(chunk.length);
    }
    if (got !== expected.length)
      throw new WrongAnswer("GET", path, answer, `${got} bytes of ${expected.length}`);
  }

  /** Cuts the connection when so many bytes of the answer have come, its head included, or all of it. */
  async hangUp(path: string, after: number): Promise<void> {
    const { hostname, port } = new URL(this.#url);
    const socket = connect(Number(port), hostname);
    const over = Promise.withResolvers<void>();
    let came = 0;
    socket.on("data", (bytes) => {
      came += bytes.length;
      if (came >= after) over.resolve();
    });
    for (const event of ["end", "close", "error"]) socket.on(event, over.resolve);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}:${port}\r\nConnection: close\r\n\r\n`);
    await over.promise;
    socket.destroy();
  }
}

/** An answer that is not what it must be, and ended as if it were. A transfer that breaks is another error. */
export class WrongAnswer extends Error {
  readonly status: number;

  constructor(method: string, path: string, { status }: Response, found: string | null) {
    super(`${method} ${path}: status ${status}, ${found}`);
    this.status = status;
  }
}

const BASE32 = "0123456789abcdfghijklmnpqrsvwxyz";

/** The URL of a narinfo that is nowhere. */
export function unknownUrl({ below }: Choices): string {
  return `/${Array.from({ length: 32 }, () => BASE32[below(32)]).join("")}.narinfo`;
}

/** Some range of a NAR, of at most so many bytes. */
export function someRange({ nar }: KnownPath, most: number, { below }: Choices): ByteRange {
  const offset = below(nar.length);
  return { offset, length: 1 + below(Math.min(most, nar.length - offset)) };
}
