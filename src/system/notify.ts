/**
 * Telling systemd how the service does, as `Type=notify` expects it.
 * https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
 *
 * A message is one datagram to a Unix socket, which Bun has no API for, so libc sends it. It then comes from the
 * main process, as systemd's default `NotifyAccess=main` wants. Where no code may be made at run time
 * (`MemoryDenyWriteExecute=`) or libc has another name, the program systemd-notify sends it; a unit must allow that
 * by `NotifyAccess=all`.
 */

import { dlopen } from "bun:ffi";
import { childEnvironment } from "../child-environment.ts";
import { messageOf } from "../errors.ts";

/** Linux, on every architecture that Bun runs on. */
const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
/** Neither waits nor raises SIGPIPE. */
const MSG_DONTWAIT_NOSIGNAL = 0x4040;
/** Bytes of a path in a sockaddr_un, its NUL included. */
const MAX_PATH_BYTES = 108;

/** Sends a state such as `READY=1`; returns why it could not, so that nothing ever stops for it. */
export type Notify = (state: string) => Promise<string | undefined>;

/** @param env NOTIFY_SOCKET, without which nobody wants to know, and PATH */
export function createNotify(env: Readonly<Record<string, string | undefined>>): Notify {
  const socket = env.NOTIFY_SOCKET;
  if (!socket) return async () => undefined;
  return async (state) => {
    try {
      sendDatagram(socket, Buffer.from(state));
      return undefined;
    } catch (error) {
      return spawnNotify({ PATH: env.PATH ?? "", NOTIFY_SOCKET: socket }, state, error);
    }
  };
}

/** @throws when it was not sent. */
export function sendDatagram(socket: string, message: Buffer): void {
  const address = socketAddress(socket);
  const { symbols, close } = dlopen("libc.so.6", {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    sendto: { args: ["i32", "buffer", "u64", "i32", "buffer", "u32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  });
  try {
    const fd = symbols.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
    if (fd < 0) throw new Error("no socket could be made");
    const sent = symbols.sendto(fd, message, message.length, MSG_DONTWAIT_NOSIGNAL, address, address.length);
    symbols.close(fd);
    if (Number(sent) !== message.length) throw new Error(`nobody reads ${socket}`);
  } finally {
    close();
  }
}

/** A sockaddr_un. A name that begins with @ is in the abstract namespace, which a NUL says. */
function socketAddress(socket: string): Buffer {
  const isAbstract = socket.startsWith("@");
  if (!isAbstract && !socket.startsWith("/")) throw new Error(`${socket} is no Unix socket`);
  const path = Buffer.from(isAbstract ? `\0${socket.slice(1)}` : `${socket}\0`);
  if (path.length > MAX_PATH_BYTES) throw new Error("the path of the socket is too long");
  const family = Buffer.alloc(2);
  new Uint16Array(family.buffer, family.byteOffset, 1)[0] = AF_UNIX;
  return Buffer.concat([family, path]);
}

async function spawnNotify(
  env: Record<string, string>,
  state: string,
  cause: unknown,
): Promise<string | undefined> {
  const failed = (why: string) =>
    `systemd could not be told ${JSON.stringify(state)}: ${messageOf(cause)}; systemd-notify: ${why}`;
  try {
    const child = Bun.spawn(["systemd-notify", ...state.split("\n")], {
      env: childEnvironment(env),
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    const [code, text] = await Promise.all([child.exited, child.stderr.text()]);
    return code === 0 ? undefined : failed(text.trim());
  } catch (error) {
    return failed(messageOf(error));
  }
}
