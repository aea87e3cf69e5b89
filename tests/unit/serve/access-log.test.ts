import { expect, test } from "bun:test";
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
  const stream = { writableLength: 0, write: (text: string) => written.push(text) > 0 };
  const write = createLineWriter(stream as never);
  write("a");
  stream.writableLength = 2 ** 20;
  write("b");
  stream.writableLength = 0;
  write("c");
  expect(written).toEqual(["a\n", "c\n"]);
});
