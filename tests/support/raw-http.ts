/** Requests as they stand, for paths and answers that an HTTP client would mend. */

export interface RawAnswer {
  readonly status: number;
  /** Everything after the head, chunk lengths included. */
  readonly body: Buffer;
  readonly head: string;
}

/** Sends a request line and headers, asks for the connection to be closed, and reads until it is. */
export async function rawRequest(url: string, request: string): Promise<RawAnswer> {
  const { hostname, port } = new URL(url);
  const received: Buffer[] = [];
  const closed = Promise.withResolvers<void>();
  await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      open: (socket) => void socket.write(`${request}\r\nConnection: close\r\n\r\n`),
      data: (_, bytes) => void received.push(Buffer.from(bytes)),
      close: () => closed.resolve(),
      error: (_, error) => closed.reject(error),
    },
  });
  await closed.promise;
  const all = Buffer.concat(received);
  const end = all.indexOf("\r\n\r\n");
  const head = all.subarray(0, end).toString("latin1");
  return { status: Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1]), head, body: all.subarray(end + 4) };
}
