/** A Unix datagram socket, as systemd has one for its services to write to. Linux. */
import { dlopen } from "bun:ffi";

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const MSG_DONTWAIT = 0x40;

export interface Datagrams extends Disposable {
  /** The next one, once it is there. */
  next(): Promise<string>;
}

/** @param name a path, or with @ in front a name in the abstract namespace */
export function listenForDatagrams(name: string): Datagrams {
  const { symbols, close } = dlopen("libc.so.6", {
    socket: { args: ["i32", "i32", "i32"], returns: "i32" },
    bind: { args: ["i32", "buffer", "u32"], returns: "i32" },
    recv: { args: ["i32", "buffer", "u64", "i32"], returns: "i64" },
    close: { args: ["i32"], returns: "i32" },
  });
  const path = Buffer.from(name.startsWith("@") ? `\0${name.slice(1)}` : `${name}\0`);
  const address = Buffer.concat([new Uint8Array(new Uint16Array([AF_UNIX]).buffer), path]);
  const fd = symbols.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  if (symbols.bind(fd, address, address.length) !== 0) throw new Error(`cannot listen on ${name}`);
  const buffer = Buffer.alloc(4096);
  return {
    async next() {
      for (;;) {
        const length = Number(symbols.recv(fd, buffer, buffer.length, MSG_DONTWAIT));
        if (length >= 0) return buffer.toString("utf8", 0, length);
        await Bun.sleep(5);
      }
    },
    [Symbol.dispose]() {
      symbols.close(fd);
      close();
    },
  };
}
