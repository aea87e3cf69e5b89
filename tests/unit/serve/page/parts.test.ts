/** The small parts of the page: lines to copy, markup, traffic, records. */
import { describe, expect, test } from "bun:test";
import type { TrafficCount } from "../../../../src/serve/page/client/data.ts";
import { clientLines, usableKeys } from "../../../../src/serve/page/client-lines.ts";
import { html } from "../../../../src/serve/page/html.ts";
import { publishOf } from "../../../../src/serve/page/publish.ts";
import { createTrafficRing } from "../../../../src/serve/page/traffic-ring.ts";
import { storeHash, TestHost, testRecord } from "../../../support/protocol.ts";

const KEY = `me-1:${"A".repeat(43)}=`;

test("lines for nix.conf and NixOS", () => {
  expect(clientLines("http://127.0.0.1:37515", [KEY, `b:${"B".repeat(43)}=`])).toEqual({
    nixConf: `extra-substituters = http://127.0.0.1:37515
extra-trusted-public-keys = ${KEY} b:${"B".repeat(43)}=`,
    nixos: `nix.settings = {
  substituters = [ "http://127.0.0.1:37515" ];
  trusted-public-keys = [
    "${KEY}"
    "b:${"B".repeat(43)}="
  ];
};`,
  });
  expect(clientLines("http://h", [])).toEqual({
    nixConf: "extra-substituters = http://h",
    nixos: 'nix.settings = {\n  substituters = [ "http://h" ];\n};',
  });
});

test("a key that would bring further settings along is none", () => {
  const hostile = [
    `${KEY}\nsandbox = false`,
    `\n${KEY}`,
    `a b:${"A".repeat(43)}=`,
    `"\${x}":${"A".repeat(43)}=`,
    "k:AAAA",
    "",
  ];
  expect(usableKeys([...hostile, KEY, `#x:${"A".repeat(43)}=`])).toEqual([KEY]);
});

test("what is put into HTML is text, unless it is HTML", () => {
  const inner = html`<b>${"<i>&\"'"}</b>`;
  expect(html`<p title="${'"><script>'}">${[inner, inner]}${undefined}${3}</p>`.html).toBe(
    `<p title="&quot;&gt;&lt;script&gt;"><b>&lt;i&gt;&amp;&quot;&#39;</b><b>&lt;i&gt;&amp;&quot;&#39;</b>3</p>`,
  );
});

test("traffic is kept for an hour, in intervals, the last of which is under way", () => {
  let total: TrafficCount = { requests: 100, bytes: 0, sources: { cache: 100 } };
  const ring = createTrafficRing(() => total, 7);
  const add = (requests: number) => {
    total = {
      requests: total.requests + requests,
      bytes: total.bytes + 10 * requests,
      sources: { cache: 100, upstream: requests },
    };
  };
  expect(ring.read().intervals.map(({ requests }) => requests)).toEqual([0]);
  add(5);
  expect(ring.read().intervals).toEqual([{ requests: 5, bytes: 50, sources: { cache: 0, upstream: 5 } }]);
  ring.tick();
  expect(ring.read().intervals.map(({ requests }) => requests)).toEqual([5, 0]);
  for (let i = 1; i <= 200; i++) {
    add(i);
    ring.tick();
  }
  const { intervals, since, total: inAll } = ring.read();
  expect(intervals.map(({ requests }) => requests)).toEqual([
    ...Array.from({ length: 59 }, (_, i) => 142 + i),
    0,
  ]);
  expect([since, inAll.requests]).toEqual([7, total.requests]);
});

describe("a publish record", () => {
  const shown = (more: Parameters<typeof testRecord>[2]) =>
    publishOf({ name: "20260101t000000z-0123456789abcdef", record: testRecord([], new TestHost(), more) });
  const revision = "a".repeat(40);
  const run = "https://github.com/o/r/actions/runs/12";

  test("is linked to its commit and its run", () => {
    expect(shown({ run, revision, system: "x86_64-linux" })).toMatchObject({
      time: Date.UTC(2026, 0, 1),
      system: "x86_64-linux",
      revision,
      revisionUrl: `https://github.com/o/r/commit/${revision}`,
      runUrl: run,
    });
  });

  test.each([
    "javascript:alert(1)",
    " javascript:alert(1)",
    "JaVaScRiPt:alert(1)//https://github.com/o/r/actions/runs/1",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "file:///etc/passwd",
    "//example.org/x",
    "/_refresh",
    "no address",
    `https://${"x".repeat(3000)}`,
  ])("a run that is no address of the web is no link: %p", (hostile) => {
    expect(shown({ run: hostile, revision })).toMatchObject({ runUrl: null, revisionUrl: null, revision });
  });

  test.each(["main", `${revision}/../../x`, '"><script>', "A".repeat(40)])("revision %p is no link", (of) => {
    expect(shown({ run, revision: of })).toMatchObject({ runUrl: run, revisionUrl: null });
  });

  test("is bounded in all its fields", () => {
    const long = "x".repeat(10_000);
    const roots = Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`r${1000 + i}${long}`, long]));
    const publish = shown({
      source: long,
      tool: long,
      system: long,
      revision: long,
      time: "yesterday",
      roots,
    });
    expect(JSON.stringify(publish).length).toBeLessThan(200_000);
    expect(publish).toMatchObject({ time: null, rootCount: 1000 });
    expect(publish.roots).toHaveLength(200);
  });

  test("roots that are store paths have a hash", () => {
    const path = `/nix/store/${storeHash("a")}-a`;
    const roots = { a: path, b: "/etc/passwd", c: `/nix/store/${"e".repeat(32)}-a`, ["__proto__"]: path };
    expect(shown({ roots }).roots.map(({ attribute, hash }) => [attribute, hash])).toEqual([
      ["__proto__", storeHash("a")],
      ["a", storeHash("a")],
      ["b", null],
      ["c", null],
    ]);
  });
});
