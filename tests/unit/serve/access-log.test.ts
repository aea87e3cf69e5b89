import { expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { accessLine } from "../../../src/serve/access-log.ts";
import { Exchange } from "../../../src/serve/exchange.ts";
import { KindTraffic } from "../../../src/serve/traffic.ts";
import { createLineWriter } from "../../../src/terminal/log.ts";

function line(url: string, change: (exchange: Exchange) => void = () => {}, client?: string) {
  const exchange = new Exchange(new KindTraffic(), 0);
  exchange.status = 200;
  change(exchange);
  return accessLine({ method: "GET", url }, exchange, client, 1.26);
}

test("a line says who asked for what and what came of it", () => {
  const hit = (exchange: Exchange) => {
    exchange.source = "cache";
    exchange.bytes = 612;
  };
  expect(line("http://127.0.0.1:37515/a.narinfo", hit, "::1")).toBe(
    "::1 GET /a.narinfo 200 612 B 1.3 ms cache",
  );
  expect(line("/a", (exchange) => Object.assign(exchange, { isCut: true }))).toBe(
    "- GET /a 200 0 B 1.3 ms none cut",
  );
});

test("queries, which may hold secrets, are left out", () => {
  for (const url of ["http://h/nar/x?token=hunter2", "/nar/x?token=hunter2", "http://h/nar/x?a?hunter2"]) {
    expect(line(url)).toStartWith("- GET /nar/x 200 ");
  }
});

test("nothing that a client sends makes a second line, drives a terminal, or fills the log", () => {
  expect(line("http://h/a\n127.0.0.1 GET /b\x1b[2J\u202e")).toBe(
    "- GET /a\\u000a127.0.0.1 GET /b\\u001b[2J\\u202e 200 0 B 1.3 ms none",
  );
  expect(line(`http://h/${"a".repeat(10_000)}`).length).toBeLessThan(400);
});

test("lines that nobody reads are left out, so that memory stays bounded", () => {
  const written: string[] = [];
  const flushed: (() => void)[] = [];
  const write = createLineWriter({
    write: (text: string, done: () => void) => {
      written.push(text);
      return flushed.push(done) < 0;
    },
  } as never);
  const long = "a".repeat(2 ** 20);
  for (const line of [long, "b", "c"]) write(line);
  expect(written).toEqual([`${long}\n`]);
  flushed.shift()?.();
  write("d");
  expect(written.slice(1)).toEqual(["d\n"]);
});

test("of a real pipe that nobody reads hardly more than a MiB is kept", async () => {
  const folder = mkdtempSync(join(tmpdir(), "nixcache-test-lines-"));
  const file = join(import.meta.dir, "../../../src/terminal/log.ts");
  const script = `
    import { writeFileSync } from "node:fs";
    import { createLineWriter } from ${JSON.stringify(file)};
    const write = createLineWriter(process.stderr);
    for (let turn = 0; turn < 100; turn++) {
      for (let line = 0; line < 1000; line++) write("x".repeat(99));
      await new Promise((resolve) => setImmediate(resolve));
    }
    writeFileSync(process.argv[1], "all");`;
  // Nothing is read before all has been written.
  const unread = 'mkfifo "$2"; "$0" -e "$1" "$2" 2>&1 >/dev/null | { cat "$2" >/dev/null; cat; }';
  const child = Bun.spawn(["sh", "-c", unread, process.execPath, script, join(folder, "all")]);
  const text = await child.stdout.text();
  rmSync(folder, { recursive: true });
  expect(text.length).toBeLessThan(2 * 1024 ** 2);
  expect(text).toMatch(/^(x{99}\n){500,}$/);
});
