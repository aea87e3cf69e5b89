import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createNotify } from "../../../src/system/notify.ts";
import { listenForDatagrams } from "../../support/datagrams.ts";

const folder = mkdtempSync(join(tmpdir(), "nixcache-test-notify-"));
afterAll(() => rmSync(folder, { recursive: true }));

test.each([
  ["a path", join(folder, "socket")],
  ["an abstract name", `@nixcache-test-${process.pid}`],
])("a state arrives at %s as one datagram", async (_, name) => {
  using systemd = listenForDatagrams(name);
  const notify = createNotify({ NOTIFY_SOCKET: name });
  expect(await notify("READY=1\nSTATUS=serving …")).toBeUndefined();
  expect(await systemd.next()).toBe("READY=1\nSTATUS=serving …");
  await notify("STOPPING=1");
  expect(await systemd.next()).toBe("STOPPING=1");
});

test("without systemd nothing is sent", async () => {
  expect(await createNotify({})("READY=1")).toBeUndefined();
  expect(await createNotify({ NOTIFY_SOCKET: "" })("READY=1")).toBeUndefined();
});

test.each([["vsock:2:1"], [join(folder, "nobody")], [`/${"x".repeat(200)}`]])(
  "what cannot be sent by libc (%s) the program systemd-notify sends, with nothing else of the environment",
  async (name) => {
    // A double of systemd's program.
    const program = join(folder, "systemd-notify");
    await Bun.write(program, `#!/bin/sh\necho "$NOTIFY_SOCKET $SECRET $*" > "${folder}/told"\n`);
    chmodSync(program, 0o755);
    const env = { NOTIFY_SOCKET: name, PATH: `${folder}:/bin:/usr/bin`, SECRET: "hunter2" };
    expect(await createNotify(env)("READY=1\nSTATUS=x y")).toBeUndefined();
    expect(await Bun.file(join(folder, "told")).text()).toBe(`${name}  READY=1 STATUS=x y\n`);
  },
);

test("what cannot be sent at all is told, and is no error", async () => {
  const failure = await createNotify({ NOTIFY_SOCKET: join(folder, "nobody"), PATH: "/nonexistent" })(
    "READY=1",
  );
  expect(failure).toMatch(/^systemd could not be told "READY=1": nobody reads .*; systemd-notify: /);
});
