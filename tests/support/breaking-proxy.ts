/** A TCP proxy that breaks: it cuts the first connection that has carried so many bytes of answers, and no other. */
import { connect, createServer, type Socket } from "node:net";

export interface BreakingProxy {
  readonly url: string;
  /** Heads of the requests that passed, those without a body. */
  requests(): string[];
  /** How many connections it has cut. */
  broken(): number;
  close(): Promise<void>;
}

/** @param after bytes */
export async function startBreakingProxy(target: string, after: number): Promise<BreakingProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  let requests = "";
  let broken = 0;
  const server = createServer((client) => {
    const origin = connect(Number(port), hostname);
    let carried = 0;
    for (const socket of [client, origin]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        origin.destroy();
      });
    }
    client.on("data", (bytes) => {
      requests += bytes.toString("latin1");
      origin.write(bytes);
    });
    origin.on("data", (bytes: Buffer) => {
      carried += bytes.length;
      if (carried > after && broken === 0) {
        broken++;
        client.end(bytes.subarray(0, bytes.length - (carried - after)));
        return origin.destroy();
      }
      if (client.write(bytes)) return;
      origin.pause();
      client.once("drain", () => origin.resume());
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
    requests: () => requests.split("\r\n\r\n").filter(Boolean),
    broken: () => broken,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
