/**
 * HTTP/1.1 on bare sockets, for servers that must misbehave: an HTTP library would mend or refuse what a fault
 * needs, such as a reset in the middle of a body or a length that is a lie. Keep-alive works, pipelining does not.
 */
import { createServer, type Server, type Socket } from "node:net";

const MAX_HEAD_BYTES = 64 * 1024;

export interface WireRequest {
  readonly method: string;
  /** Path and query, as sent. */
  readonly target: string;
  readonly headers: Headers;
  /** The next bytes of the body, at most `most`; undefined at its end. @throws when the client is gone */
  read(most: number): Promise<Buffer | undefined>;
  /** The rest of the body. @throws when the client is gone */
  body(): Promise<Buffer>;
}

export interface WireAnswer {
  /** Waits while the client reads slowly. Nothing happens once the client is gone. */
  write(bytes: Uint8Array | string): Promise<void>;
  /** Ends the connection as if nothing were wrong. */
  end(): void;
  /** Ends the connection by RST. */
  reset(): void;
  /** Resolves when the client, or this side, has ended the connection. */
  readonly closed: Promise<void>;
}

export interface WireServer {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Cuts all connections. */
  close(): Promise<void>;
}

/** @param handle answers one request; the connection is kept unless it ended it. */
export async function startWire(
  handle: (request: WireRequest, answer: WireAnswer) => Promise<void>,
): Promise<WireServer> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    converse(socket, handle).catch(() => socket.destroy());
  });
  const port = await listen(server);
  return {
    host: `127.0.0.1:${port}`,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function converse(
  socket: Socket,
  handle: (request: WireRequest, answer: WireAnswer) => Promise<void>,
): Promise<void> {
  const input = new Input(socket);
  const answer = answerOn(socket);
  for (;;) {
    const head = await input.head();
    if (head === undefined) return void socket.end();
    const request = parseHead(head, input);
    if (request.headers.get("expect") === "100-continue") await answer.write("HTTP/1.1 100 Continue\r\n\r\n");
    await handle(request, answer);
    if (socket.destroyed || socket.writableEnded) return;
    // What the handler left of the body stands before the next request.
    await request.body();
  }
}

function parseHead(head: string, input: Input): WireRequest {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", target = ""] = first.split(" ");
  const headers = new Headers();
  for (const line of lines) {
    const colon = line.indexOf(":");
    if (colon > 0) headers.append(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  const chunked = /chunked/i.test(headers.get("transfer-encoding") ?? "");
  let left = chunked ? 0 : Number(headers.get("content-length") ?? 0);
  let ended = !chunked;

  const read = async (most: number): Promise<Buffer | undefined> => {
    if (left === 0 && !ended) {
      left = Number.parseInt(await input.line(), 16);
      ended = left === 0;
      if (ended) await input.line();
    }
    if (left === 0) return undefined;
    const bytes = await input.some(Math.min(left, most));
    left -= bytes.length;
    if (left === 0 && !ended) await input.line();
    return bytes;
  };
  const body = async (): Promise<Buffer> => {
    const pieces: Buffer[] = [];
    for (let piece = await read(1 << 30); piece; piece = await read(1 << 30)) pieces.push(piece);
    return Buffer.concat(pieces);
  };
  return { method, target, headers, read, body };
}

/** Bytes from a socket, pulled: it is paused while nobody asks. */
class Input {
  readonly #socket: Socket;
  #buffer: Buffer = Buffer.alloc(0);
  #ended = false;
  #wake = () => {};

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#buffer = Buffer.concat([this.#buffer, bytes]);
      if (this.#buffer.length > 1 << 20) socket.pause();
      this.#wake();
    });
    for (const event of ["end", "close", "error"]) {
      socket.on(event, () => {
        this.#ended = true;
        this.#wake();
      });
    }
  }

  async head(): Promise<string | undefined> {
    for (;;) {
      const end = this.#buffer.indexOf("\r\n\r\n");
      if (end >= 0) return this.#take(end + 4).toString("latin1", 0, end);
      if (this.#buffer.length > MAX_HEAD_BYTES) throw new Error("the head of the request is too large");
      if (!(await this.#more())) return undefined;
    }
  }

  async line(): Promise<string> {
    for (;;) {
      const end = this.#buffer.indexOf("\r\n");
      if (end >= 0) return this.#take(end + 2).toString("latin1", 0, end);
      if (!(await this.#more())) throw new Error("the client is gone");
    }
  }

  async some(most: number): Promise<Buffer> {
    while (this.#buffer.length === 0) if (!(await this.#more())) throw new Error("the client is gone");
    return this.#take(Math.min(most, this.#buffer.length));
  }

  #take(length: number): Buffer {
    const taken = this.#buffer.subarray(0, length);
    this.#buffer = this.#buffer.subarray(length);
    return taken;
  }

  async #more(): Promise<boolean> {
    if (this.#ended) return false;
    const before = this.#buffer.length;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      this.#socket.resume();
    });
    return this.#buffer.length > before || !this.#ended;
  }
}

function answerOn(socket: Socket): WireAnswer {
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  return {
    closed,
    async write(bytes) {
      if (socket.destroyed || socket.write(bytes)) return;
      await Promise.race([closed, new Promise<void>((resolve) => socket.once("drain", () => resolve()))]);
    },
    end: () => void socket.end(),
    reset: () => void socket.resetAndDestroy(),
  };
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
