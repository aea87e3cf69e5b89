/**
 * The least that Bun can do, to compare with: `bun bench/bare-server.ts map FILE` answers narinfos out of a Map, read
 * from lines of JSON; `bun bench/bare-server.ts pass URL` passes on whatever is asked for, and `check URL` hashes it on
 * the way. Prints where it listens.
 */
import { readFileSync } from "node:fs";

const [kind, argument = ""] = process.argv.slice(2);
const HEADERS = { "content-type": "text/x-nix-narinfo" };

const server = Bun.serve({
  ...{ hostname: "127.0.0.1", port: 0, idleTimeout: 0, development: false },
  fetch: kind === "map" ? fromMap(argument) : (request) => passOn(request, argument, kind === "check"),
});
console.log(`listening on http://127.0.0.1:${server.port}`);

function fromMap(file: string): (request: Request) => Response {
  const lines = readFileSync(file, "utf8").trimEnd().split("\n");
  const answers = new Map(lines.map((line) => JSON.parse(line) as [string, string]));
  return ({ url }) => {
    const answer = answers.get(url.slice(url.indexOf("/", 8)));
    return answer === undefined
      ? new Response("not found\n", { status: 404 })
      : new Response(answer, { headers: HEADERS });
  };
}

async function passOn({ url }: Request, origin: string, checks: boolean): Promise<Response> {
  const { status, body } = await fetch(origin + url.slice(url.indexOf("/", 8)), { decompress: false });
  return new Response(checks && body !== null ? hashed(body) : body, { status });
}

/** Holds the last chunk back until all of it was hashed, as whoever checks must. */
function hashed(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  const hasher = new Bun.CryptoHasher("sha256");
  let held: Uint8Array | undefined;
  return new ReadableStream(
    {
      async pull(controller) {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) hasher.digest();
          else hasher.update(value);
          const next = held;
          held = value;
          if (next !== undefined) controller.enqueue(next);
          if (done) return controller.close();
          if (next !== undefined) return;
        }
      },
    },
    { highWaterMark: 0 },
  );
}
