/** A server that says what a test says, byte for byte: no HTTP server of the usual kind can lie so. */
import { createServer, type Socket } from "node:net";

export interface Liar {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Bytes that it has handed to the network since it was made. */
  sent(): number;
  /** Heads of the requests so far. */
  readonly requests: string[];
  close(): Promise<void>;
}

/** Writes to the socket of one request. `flood` repeats a piece until the client goes away. */
export type Answer = (
  request: string,
  out: { write(bytes: string | Uint8Array): void; end(): void; flood(piece: Uint8Array): void },
) => void;

export async function openLiar(answer: Answer): Promise<Liar> {
  const sockets = new Set<Socket>();
  const requests: string[] = [];
  let sent = 0;
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    let head = "";
    socket.on("data", (bytes) => {
      head += bytes.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      const request = head;
      head = "";
      requests.push(request);
      const write = (piece: string | Uint8Array): boolean => {
        if (socket.destroyed) return false;
        sent += piece.length;
        return socket.write(piece);
      };
      answer(request, {
        write,
        end: () => socket.end(),
        flood: (piece) => {
          const more = () => {
            while (!socket.destroyed && write(piece));
          };
          socket.on("drain", more);
          more();
        },
      });
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    host: `127.0.0.1:${port}`,
    sent: () => sent,
    requests,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/**
 * Waits until the one thread on which Bun receives is done with all that came before: what is unpacked there goes on
 * after the reader has turned away.
 */
export async function received({ host }: Liar): Promise<void> {
  const response = await fetch(`http://${host}/`, { decompress: false, headers: { connection: "close" } });
  await response.body?.cancel();
}

/** `HTTP/1.1 200 OK` with these headers. */
export function head(headers: Readonly<Record<string, string | number>>, status = "200 OK"): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status}\r\n${lines.join("")}\r\n`;
}

export const MIB = 1024 * 1024;
const TEN_GB = 10_000_000_000;
const TRASH = new Uint8Array(64 * 1024).fill(0x5b);
/** Bytes on their way when a client turns away: buffers of sockets on both sides. */
export const IN_FLIGHT = 32 * MIB;
/** What a client waits in milliseconds for a server that says nothing more. */
export const PATIENCE_MS = 500;

/** How each way of never ending is written. */
export const ENDLESS: [name: string, answer: Answer][] = [
  [
    "10 GB are promised and sent",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }));
      out.flood(TRASH);
    },
  ],
  [
    "no length, no end",
    (_, out) => {
      out.write(head({ connection: "close" }));
      out.flood(TRASH);
    },
  ],
  [
    "chunks without end",
    (_, out) => {
      out.write(head({ "transfer-encoding": "chunked" }));
      out.flood(Buffer.concat([Buffer.from("10000\r\n"), TRASH, Buffer.from("\r\n")]));
    },
  ],
  [
    "an error page without end",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }, "500 Oops"));
      out.flood(TRASH);
    },
  ],
  [
    "a refusal without end",
    (_, out) => {
      out.write(head({ "content-length": TEN_GB }, "403 No"));
      out.flood(TRASH);
    },
  ],
];

/** Lengths that are not kept, and answers that are none. */
export const PROMISES: [name: string, answer: Answer][] = [
  [
    "10 GB are promised, the connection closes",
    (_, out) => {
      out.write(`${head({ "content-length": TEN_GB })}{}`);
      out.end();
    },
  ],
  ["10 GB are promised, nothing follows", (_, out) => out.write(`${head({ "content-length": TEN_GB })}{}`)],
  [
    "a chunk is promised, nothing follows",
    (_, out) => out.write(`${head({ "transfer-encoding": "chunked" })}ffffffff\r\n{}`),
  ],
  [
    "chunk lengths are no numbers",
    (_, out) => {
      out.write(`${head({ "transfer-encoding": "chunked" })}zz\r\n{}\r\n`);
      out.end();
    },
  ],
  [
    "the length is negative",
    (_, out) => {
      out.write(`${head({ "content-length": -1 })}{}`);
      out.end();
    },
  ],
  [
    "two lengths",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: ${TEN_GB}\r\n\r\n{}`);
      out.end();
    },
  ],
  [
    "no HTTP",
    (_, out) => {
      out.write("\x1b[2J SSH-2.0-x\r\n\r\n");
      out.end();
    },
  ],
  [
    "status 999",
    (_, out) => {
      out.write(head({ "content-length": 0 }, "999 \x1b[31m"));
      out.end();
    },
  ],
  ["nothing at all", (_, out) => out.end()],
  ["silence", () => {}],
  [
    "a thousand headers",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\n${"x-flood: y\r\n".repeat(1000)}\r\n{}`);
      out.end();
    },
  ],
  [
    "a header of a MiB",
    (_, out) => {
      out.write(`HTTP/1.1 200 OK\r\nx: ${"y".repeat(MIB)}\r\n\r\n{}`);
      out.end();
    },
  ],
  [
    "headers without end",
    (_, out) => {
      out.write("HTTP/1.1 200 OK\r\n");
      out.flood(Buffer.from("x-flood: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(1000)));
    },
  ],
];
