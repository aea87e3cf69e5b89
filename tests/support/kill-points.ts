/**
 * Loaded before `src/main.ts` (`bun --preload`), this counts every call that changes a file, by node:fs or SQLite,
 * and ends the process by SIGKILL at one of them. For stores and indexes on disk, where no proxy sees what happens.
 *
 *     KILL_POINT=17          at the seventeenth such call
 *     KILL_WHEN=before       before it takes effect, or `after` it and before the caller hears of it
 *     KILL_ON=rename:REGEX   counts only calls of that name with such an argument
 *     KILL_COUNT_FILE=PATH   where a process that ends by itself writes how many there were
 *
 * Modules of the product import these names when they are loaded, so they must be replaced before.
 */
const fs = require("node:fs") as typeof import("node:fs");
const fsp = require("node:fs/promises") as typeof import("node:fs/promises");
const { Database } = require("bun:sqlite") as typeof import("bun:sqlite");

const { KILL_POINT, KILL_WHEN = "before", KILL_ON = "", KILL_COUNT_FILE } = process.env;
const [onName = "", onArgument = ""] = KILL_ON.split(/:(.*)/s);
const point = Number(KILL_POINT ?? Number.NaN);
let count = 0;

function die(): never {
  process.kill(process.pid, "SIGKILL");
  // The signal is on its way; nothing of this process may happen meanwhile.
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

type AnyFunction = (this: unknown, ...args: unknown[]) => unknown;

/** Replaces methods by ones that count. `counts` may pass a call over, such as an open for reading. */
function watch(
  object: object,
  names: readonly string[],
  counts: (args: unknown[]) => boolean = () => true,
): void {
  const methods = object as Record<string, AnyFunction>;
  for (const name of names) {
    const original = methods[name] as AnyFunction;
    methods[name] = function (...args) {
      const isMeant = KILL_ON === "" || (name === onName && new RegExp(onArgument).test(args.join(" ")));
      if (!isMeant || !counts(args)) return original.apply(this, args);
      const isLast = ++count === point;
      if (isLast && KILL_WHEN === "before") die();
      if (!isLast) return original.apply(this, args);
      // A call that fails has changed nothing, and is a moment like any other.
      let result: unknown;
      try {
        result = original.apply(this, args);
      } catch {
        die();
      }
      return result instanceof Promise ? result.then(die, die) : die();
    };
  }
}

const writes = ([, flags]: unknown[]) => typeof flags === "string" && flags !== "r";
const handle = await fsp.open("/dev/null");
const fileHandle = Object.getPrototypeOf(handle);
await handle.close();
watch(fsp, ["rename", "link", "unlink", "mkdir", "utimes", "rm"]);
watch(fsp, ["open"], writes);
watch(fileHandle, ["write", "writeFile", "sync", "chmod"]);
watch(fs, ["mkdirSync", "rmSync", "mkdtempSync", "write", "writeSync", "renameSync"]);
watch(fs, ["openSync"], writes);
watch(Database.prototype, ["run"]);
// A statement's methods are its own, and a database hands out the same statement for the same text.
const { query } = Database.prototype;
const watched = new WeakSet<object>();
Database.prototype.query = function (this: InstanceType<typeof Database>, text: string) {
  const statement = query.call(this, text);
  if (!watched.has(statement)) watch(statement, ["run"]);
  watched.add(statement);
  return statement;
} as typeof query;

process.on("exit", () => {
  if (KILL_COUNT_FILE !== undefined) fs.writeFileSync(KILL_COUNT_FILE, String(count));
});

// A module, which may wait at its top level.
export {};
