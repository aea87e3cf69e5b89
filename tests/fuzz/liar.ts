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

/** `HTTP/1.1 200 OK` with these headers. */
export function head(headers: Readonly<Record<string, string | number>>, status = "200 OK"): string {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status}\r\n${lines.join("")}\r\n`;
}
