/**
 * A TCP proxy that makes a server far away, a double of distance: every byte takes half of the round trip, and a
 * new connection costs one more, as its handshake would. It counts requests and bytes on the way, and changes none.
 */
import { connect, createServer, type Socket } from "node:net";

export interface FarRequest {
  readonly method: string;
  /** Path and query, as sent. */
  readonly path: string;
  /** Bytes on the wire of the request, heads included, and of its answer. */
  sent: number;
  received: number;
}

export interface FarProxy {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  readonly url: string;
  /** In the order in which they began; whoever counts may empty it. */
  readonly requests: FarRequest[];
  /** Connections since the start. */
  readonly connections: () => number;
  close(): Promise<void>;
}

export interface FarOptions {
  /** `127.0.0.1:PORT` of the server. */
  readonly target: string;
  /** Milliseconds there and back. Default: 0. */
  readonly roundTripMs?: number;
}

export async function startFarProxy({ target, roundTripMs = 0 }: FarOptions): Promise<FarProxy> {
  const [hostname = "", port = ""] = target.split(":");
  const sockets = new Set<Socket>();
  const requests: FarRequest[] = [];
  let connections = 0;
  const server = createServer({ allowHalfOpen: true }, (client) => {
    connections++;
    const origin = connect({ port: Number(port), host: hostname, allowHalfOpen: true });
    for (const socket of [client, origin]) {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        origin.destroy();
      });
    }
    const count = countRequests(requests);
    pass(client, origin, roundTripMs / 2, roundTripMs, count.sent);
    pass(origin, client, roundTripMs / 2, 0, count.received);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  const host = `127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  return {
    host,
    url: `http://${host}`,
    requests,
    connections: () => connections,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Bytes under way that nobody has taken yet, after which the sender is held back. */
const WINDOW_BYTES = 4 * 1024 * 1024;

/** Hands bytes on `delayMs` after they came, in order; the first ones `firstMs` later. */
function pass(
  from: Socket,
  to: Socket,
  delayMs: number,
  firstMs: number,
  count: (bytes: Buffer) => void,
): void {
  let waiting = 0;
  const later = inOrder(delayMs, performance.now() + firstMs + delayMs);
  from.on("data", (bytes: Buffer) => {
    count(bytes);
    waiting += bytes.length;
    if (waiting > WINDOW_BYTES) from.pause();
    later(() => {
      const taken = () => {
        waiting -= bytes.length;
        if (waiting <= WINDOW_BYTES) from.resume();
      };
      if (to.destroyed) taken();
      else to.write(bytes, taken);
    });
  });
  from.on("end", () => later(() => void to.end()));
}

/** Does things `delayMs` after they were asked for, none before `notBefore`, in the order in which they were. */
function inOrder(delayMs: number, notBefore: number): (act: () => void) => void {
  const queue: { readonly due: number; readonly act: () => void }[] = [];
  const run = () => {
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      const wait = first.due - performance.now();
      if (wait > 0) return void setTimeout(run, Math.ceil(wait));
      queue.shift();
      first.act();
    }
  };
  return (act) => {
    queue.push({ due: Math.max(notBefore, performance.now() + delayMs), act });
    if (queue.length === 1) run();
  };
}

/** Reads the heads of the requests of one connection. Bodies have a Content-Length; pipelining is not understood. */
function countRequests(requests: FarRequest[]) {
  let head = "";
  let body = 0;
  let current: FarRequest | undefined;
  const sent = (bytes: Buffer): void => {
    let at = 0;
    while (at < bytes.length) {
      if (body > 0) {
        const piece = Math.min(body, bytes.length - at);
        body -= piece;
        at += piece;
        if (current) current.sent += piece;
        continue;
      }
      const before = head.length;
      head += bytes.toString("latin1", at);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      const [, method = "", path = ""] = /^(\S+) (\S+) /.exec(head) ?? [];
      body = Number(/\r\ncontent-length: *(\d+)/i.exec(head.slice(0, end))?.[1] ?? 0);
      current = { method, path, sent: end + 4, received: 0 };
      requests.push(current);
      at += end + 4 - before;
      head = "";
    }
  };
  const received = (bytes: Buffer): void => {
    if (current) current.received += bytes.length;
  };
  return { sent, received };
}
