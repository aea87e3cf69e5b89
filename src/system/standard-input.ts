/** What is on standard input, found without reading from it: the bytes may be another program's. */
import { dlopen } from "bun:ffi";
import { fstatSync, readFileSync, type Stats } from "node:fs";

/**
 * `none`: a terminal, `/dev/null`, or nothing at all. `data`: bytes wait to be read. `ended`: there are none, nor will
 * there be any. `open`: somebody may still write.
 */
export type StandardInput = "none" | "data" | "ended" | "open";

/** https://pubs.opengroup.org/onlinepubs/9799919799/functions/poll.html */
const POLLIN = 1;
const POLLHUP = 16;
/** Of `recv`. */
const MSG_PEEK = 2;
const MSG_DONTWAIT = process.platform === "darwin" ? 0x80 : 0x40;

export function probeInput(fd = 0): StandardInput {
  let stat: Stats;
  try {
    stat = fstatSync(fd);
  } catch {
    return "none";
  }
  if (stat.isFile()) return stat.size > position(fd) ? "data" : "ended";
  if (!stat.isFIFO() && !stat.isSocket()) return "none";
  try {
    return poll(fd, stat.isSocket());
  } catch {
    // Where no code may be made at run time.
    return "open";
  }
}

/** How far a file is read. */
function position(fd: number): number {
  try {
    return Number(/^pos:\s*(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? 0);
  } catch {
    return 0;
  }
}

function poll(fd: number, isSocket: boolean): StandardInput {
  const { symbols, close } = dlopen(process.platform === "darwin" ? "libSystem.B.dylib" : "libc.so.6", {
    poll: { args: ["buffer", "u64", "i32"], returns: "i32" },
    recv: { args: ["i32", "buffer", "u64", "i32"], returns: "i64" },
  });
  try {
    // struct pollfd { int fd; short events; short revents; }, all in the machine's order.
    const asked = new DataView(new ArrayBuffer(8));
    asked.setInt32(0, fd, true);
    asked.setInt16(4, POLLIN, true);
    symbols.poll(Buffer.from(asked.buffer), 1, 0);
    const events = asked.getInt16(6, true);
    if (isSocket && events & POLLIN) {
      // A socket that is closed at the other end can be read, too.
      return Number(symbols.recv(fd, Buffer.alloc(1), 1, MSG_PEEK | MSG_DONTWAIT)) > 0 ? "data" : "ended";
    }
    if (events & POLLIN) return "data";
    return events & POLLHUP ? "ended" : "open";
  } finally {
    close();
  }
}
