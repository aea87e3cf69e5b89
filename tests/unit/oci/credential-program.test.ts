/** Real programs, asked for credentials: what they print, how they fail, and what they leave behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { runWithin } from "../../../src/oci/credential-program.ts";

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "nixcache-test-program-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Far more than a shell needs, far less than a test may take. */
const LIMIT_MS = 30_000;

async function script(name: string, text: string): Promise<string> {
  const file = join(folder, name);
  await Bun.write(file, text);
  await chmod(file, 0o755);
  return file;
}

const ask = (file: string, limitMs = LIMIT_MS, signal?: AbortSignal) =>
  runWithin(
    {
      command: [file, "get"],
      input: "r.example",
      env: { PATH: process.env.PATH, HELPER_SETTING: "kept" },
      signal,
    },
    limitMs,
  );

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie is not: nobody in a test's container may be there to reap it.
    return !/^State:\s*Z/m.test(require("node:fs").readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

async function untilDead(pid: number): Promise<void> {
  while (isAlive(pid)) await Bun.sleep(5);
}

test("gets the server on standard input, its environment, and nothing else", async () => {
  const file = await script(
    "good",
    '#!/bin/sh\nread -r host\nprintf "%s|%s|%s|%s" "$*" "$host" "$HELPER_SETTING" "$HOME"\n',
  );
  expect(await ask(file)).toEqual({ kind: "exited", exitCode: 0, stdout: "get|r.example|kept|" });
});

test("its exit status comes with what it printed", async () => {
  const file = await script("bad", '#!/bin/sh\necho "credentials not found"\necho secret >&2\nexit 3\n');
  expect(await ask(file)).toEqual({ kind: "exited", exitCode: 3, stdout: "credentials not found\n" });
});

test("one that is not there, and one that is none", async () => {
  expect(await ask("docker-credential-nowhere")).toEqual({ kind: "missing" });
  const file = await script("no-program", "\u0000\u0001");
  expect(await ask(file)).toMatchObject({ kind: "failed", reason: expect.stringContaining("cannot be run") });
});

test("one that is killed", async () => {
  const file = await script("killed", "#!/bin/sh\nkill -9 $$\n");
  expect(await ask(file)).toEqual({ kind: "failed", reason: "it was ended by SIGKILL" });
});

test("a flood of output is not taken", async () => {
  const file = await script("flood", "#!/bin/sh\nhead -c 1000000 /dev/zero | tr '\\\\0' x\n");
  expect(await ask(file)).toEqual({ kind: "failed", reason: "it printed more than 65536 bytes" });
});

describe("one that does not end", () => {
  const pidFile = () => join(folder, `pid-${Math.random()}`);
  const pidIn = async (file: string): Promise<number> => {
    for (;;) {
      const text = await Bun.file(file)
        .text()
        .catch(() => "");
      if (text.endsWith("\n")) return Number(text);
      await Bun.sleep(5);
    }
  };

  test("is ended with what it has started when the time is over", async () => {
    const file = pidFile();
    const helper = await script("hangs", `#!/bin/sh\nsleep 600 &\necho $! > ${file}\nwait\n`);
    // Its child holds the pipe as well.
    expect(await ask(helper, 300)).toEqual({ kind: "failed", reason: "it did not answer within 0.3 s" });
    const child = await Bun.file(file)
      .text()
      .catch(() => "");
    // On a loaded machine it may have been ended before it had started anything.
    if (child !== "") await untilDead(Number(child));
  });

  test("is ended on a signal", async () => {
    const file = pidFile();
    const helper = await script("waits", `#!/bin/sh\nsleep 600 &\necho $! > ${file}\nwait\n`);
    const abort = new AbortController();
    const answer = ask(helper, LIMIT_MS, abort.signal);
    const child = await pidIn(file);
    abort.abort();
    expect(await answer).toEqual({ kind: "failed", reason: "it was interrupted" });
    await untilDead(child);
  });

  test("but a daemon that it leaves behind, holding its output, is waited for only shortly", async () => {
    const file = pidFile();
    const helper = await script("daemon", `#!/bin/sh\nsleep 600 &\necho $! > ${file}\necho answer\n`);
    const result = await ask(helper);
    const daemon = await pidIn(file);
    try {
      expect(result).toEqual({ kind: "exited", exitCode: 0, stdout: "answer\n" });
      expect(isAlive(daemon)).toBe(true);
    } finally {
      process.kill(daemon, "SIGKILL");
    }
  });
});
