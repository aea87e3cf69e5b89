/**
 * A TCP proxy that can have an outage: a registry or an upstream whose machine is there, or not, or hangs. It begins when a
 * test says so, when a request comes, or once so many bytes of answers were carried.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

/** Nobody listens, or what listens never answers. */
export type Outage = "gone" | "hangs";

export interface OutageGate {
  /** `127.0.0.1:PORT`. */
  readonly host: string;
  /** Connections that were tried since the outage began; those to a port where nobody listens are not seen. */
  readonly tried: () => number;
  begin(outage: Outage): Promise<void>;
  end(): Promise<void>;
  /** Has an outage begin with the first request whose head matches, or once so many bytes were carried from now on. */
  arm(trigger: { request: RegExp } | { bytes: number }, onBegin?: () => void): void;
  close(): Promise<void>;
}

/** @param target `HOST:PORT` */
export async function startOutageGate(target: string): Promise<OutageGate> {
  const [hostname = "", port = ""] = target.split(":");
  const sockets = new Set<Socket>();
  let server: Server | undefined;
  let own = 0;
  let tried = 0;
  let hangs = false;
  let trigger: { request: RegExp } | { bytes: number } | undefined;
  let onBegin = () => {};
  let carried = 0;

  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  const strike = () => {
    trigger = undefined;
    void begin("gone").then(onBegin);
  };
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
  };
  const listen = async (): Promise<void> => {
    const opened = createServer((client) => {
      track(client);
      if (hangs) {
        tried++;
        client.resume();
        return;
      }
      const origin = connect(Number(port), hostname);
      track(origin);
      client.on("close", () => origin.destroy());
      origin.on("close", () => client.destroy());
      client.on("data", (bytes) => {
        if (trigger !== undefined && "request" in trigger && trigger.request.test(bytes.toString("latin1")))
          return strike();
        origin.write(bytes);
      });
      origin.on("data", (bytes) => {
        carried += bytes.length;
        if (trigger !== undefined && "bytes" in trigger && carried > trigger.bytes) return strike();
        if (client.write(bytes)) return;
        origin.pause();
        client.once("drain", () => origin.resume());
      });
    });
    server = opened;
    await new Promise<void>((resolve, reject) => {
      opened.once("error", reject);
      opened.listen(own, "127.0.0.1", resolve);
    });
    const address = opened.address();
    own = typeof address === "object" ? (address?.port ?? 0) : 0;
  };
  const shut = async (): Promise<void> => {
    const closing = server;
    server = undefined;
    const closed = closing && new Promise((resolve) => closing.close(resolve));
    cut();
    await closed;
  };
  const begin = async (outage: Outage): Promise<void> => {
    tried = 0;
    hangs = outage === "hangs";
    if (hangs) cut();
    else await shut();
  };

  await listen();
  return {
    host: `127.0.0.1:${own}`,
    tried: () => tried,
    begin,
    end: async () => {
      cut();
      hangs = false;
      if (server === undefined) await listen();
    },
    arm: (what, then = () => {}) => {
      [trigger, onBegin, carried] = [what, then, 0];
    },
    close: shut,
  };
}
