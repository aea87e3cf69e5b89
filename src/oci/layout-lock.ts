/**
 * The lock around changes of a layout folder, across processes.
 *
 * A lock file with its owner's pid has to be broken when the owner was killed, and two processes that break it
 * at once can each remove the other's new one. So the kernel keeps the lock: SQLite takes it on an empty
 * database (fcntl on Unix), and it is free the moment its owner is gone, however it went. The file is never
 * written to and stays where it is: removing it would let two owners in. It also works where machines share a
 * folder, if the file system has locks at all.
 * https://www.sqlite.org/lockingv3.html
 */
import { Database } from "bun:sqlite";
import { lstatSync } from "node:fs";
import { messageOf, NixcacheError, systemCode } from "../errors.ts";
import type { Host } from "../host.ts";
import { checkPlain, NotPlain } from "../system/plain-file.ts";
import { throwIfAborted } from "./network.ts";
import type { CallOptions } from "./store.ts";

export interface LockOptions extends CallOptions {
  readonly host: Host;
  /** Milliseconds to wait for the others before giving up. */
  readonly timeoutMs: number;
}

/** Milliseconds between two tries: on average twice the time that one change takes. */
const POLL_FLOOR_MS = 5;
const POLL_CAP_MS = 200;

/**
 * Runs `action` while no other process, and no other caller in this one, holds the lock of `file`. Who waits
 * polls, so the order is by chance; each wait is drawn anew, so that nobody starves by being in step.
 * @param file created when missing; its folder must exist.
 * @throws `filesystem` when the lock cannot be had in time, naming the file; whatever `action` throws.
 */
export async function withLock<T>(file: string, options: LockOptions, action: () => Promise<T>): Promise<T> {
  const database = openLock(file);
  try {
    await acquire(database, file, options);
    try {
      return await action();
    } finally {
      database.run("ROLLBACK");
    }
  } finally {
    database.close();
  }
}

function openLock(file: string): Database {
  let database: Database | undefined;
  try {
    // SQLite would follow a link.
    const stats = lstatSync(file, { throwIfNoEntry: false });
    if (stats !== undefined) checkPlain(file, stats);
    database = new Database(file, { create: true, readwrite: true });
    database.run("PRAGMA busy_timeout = 0");
    // Without it a journal file would appear beside the lock.
    database.run("PRAGMA journal_mode = MEMORY");
    return database;
  } catch (cause) {
    database?.close();
    if (cause instanceof NotPlain) throw cause;
    throw lockError(file, cause);
  }
}

async function acquire(database: Database, file: string, options: LockOptions): Promise<void> {
  const { host, timeoutMs, signal } = options;
  const start = host.now();
  let pause = POLL_FLOOR_MS;
  for (;;) {
    throwIfAborted(signal);
    try {
      database.run("BEGIN IMMEDIATE");
      return;
    } catch (cause) {
      if (systemCode(cause) !== "SQLITE_BUSY") throw lockError(file, cause);
    }
    if (host.now() - start > timeoutMs) {
      throw new NixcacheError(
        "filesystem",
        `lock ${file}: another process has held it for ${Math.round(timeoutMs / 1000)} s`,
        {
          hint: `Find the process with "fuser ${file}" and end it. Do not remove the file: it does no harm.`,
        },
      );
    }
    await host.sleep(pause * (0.5 + host.random()), signal).catch((reason) => {
      throwIfAborted(signal);
      throw reason;
    });
    pause = Math.min(POLL_CAP_MS, pause * 1.5);
  }
}

function lockError(file: string, cause: unknown): NixcacheError {
  const code = systemCode(cause);
  return new NixcacheError(
    "filesystem",
    `lock ${file}: ${messageOf(cause)}${code === undefined ? "" : ` (${code})`}`,
    {
      cause,
      hint:
        code === "SQLITE_NOTADB"
          ? "Something else has written to that file: remove it while no nixcache runs."
          : "Check the rights of the folder and that its file system has locks.",
    },
  );
}
