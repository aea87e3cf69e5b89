/** Bytes to an HTTP server as they stand, and what comes back until the connection is closed. */
import { connect } from "node:net";

/** A connection that is neither answered nor closed by then hangs. */
const HANG_MS = 20_000;
/** What is kept of an answer. */
const KEPT = 1024 * 1024;

/** Sends pieces, says that nothing more will come, and gives all that is answered until the connection is closed. */
export function exchange(url: string, ...pieces: (string | Uint8Array)[]): Promise<string> {
  const { hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let received = "";
  const socket = connect({ host: hostname, port: Number(port) });
  const hang = setTimeout(() => {
    socket.destroy();
    reject(new Error(`neither answered nor closed: ${JSON.stringify(pieces.map(String)).slice(0, 400)}`));
  }, HANG_MS);
  socket.on("data", (bytes) => {
    if (received.length < KEPT) received += bytes.toString("latin1");
  });
  // A reset is a way to close.
  socket.on("error", () => {});
  socket.on("close", () => {
    clearTimeout(hang);
    resolve(received);
  });
  for (const piece of pieces) socket.write(piece);
  socket.end();
  return promise;
}

/** 5xx that blame the server. Bun's parser has 505 for a first line that does not end in a version that it knows. */
export const blames = (found: readonly number[]): number[] =>
  found.filter((status) => status >= 500 && status !== 505);

export const statuses = (answer: string): number[] =>
  [...answer.matchAll(/^HTTP\/1\.[01] (\d{3}) /gm)].map(([, status]) => Number(status));
