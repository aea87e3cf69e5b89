/**
 * A process of its own for the tests of the layout: `bun layout-process.ts ACTION FOLDER …`.
 *
 *     write FOLDER PREFIX COUNT   writes the tags PREFIX-0 … one after the other, a line each once it is committed
 *     hold FOLDER                 takes the lock, says "held" and keeps it
 *     check-write FOLDER          says whether it can be written to, or why not
 */
import { join } from "node:path";
import { openLayout } from "../../../src/oci/layout.ts";
import { withLock } from "../../../src/oci/layout-lock.ts";
import { realHost, writeTag } from "./helpers.ts";

const [action, folder = "", prefix = "", count = "0"] = process.argv.slice(2);

if (action === "write") {
  const store = openLayout(folder, { host: realHost });
  for (let i = 0; i < Number(count); i++) {
    const tag = `${prefix}-${i}`;
    await writeTag(store, tag, `content of ${tag}`);
    process.stdout.write(`${tag}\n`);
  }
} else if (action === "hold") {
  const forever = new Promise<void>(() => setInterval(() => {}, 1 << 30));
  await withLock(join(folder, ".nixcache.lock"), { host: realHost, timeoutMs: 60_000 }, () => {
    process.stdout.write("held\n");
    return forever;
  });
} else if (action === "check-write") {
  await openLayout(folder, { host: realHost })
    .checkWrite?.()
    .then(
      () => console.log("can be written to"),
      (error) => console.log(`${error.code}: ${error.message}`),
    );
}
