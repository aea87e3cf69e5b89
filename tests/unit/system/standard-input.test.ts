/** What is told of standard input without reading it, for every kind of it. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const MODULE = JSON.stringify(join(import.meta.dir, "../../../src/system/standard-input.ts"));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nixcache-test-input-"));
  writeFileSync(join(folder, "full"), "bytes");
  writeFileSync(join(folder, "empty"), "");
  // What it does not read, the next program still gets.
  writeFileSync(join(folder, "probe.ts"), `import { probeInput } from ${MODULE}; console.log(probeInput());`);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** `$PROBE` is the command. A pipe is opened at both ends before it begins, so that nothing is left to chance. */
test.each<[string, string, string]>([
  ["nothing", "$PROBE < /dev/null", "none"],
  ["closed", "$PROBE <&-", "none"],
  ["a file", "$PROBE < full", "data"],
  ["an empty file", "$PROBE < empty", "ended"],
  ["a file that is read to its end", "{ cat > /dev/null; $PROBE; } < full", "ended"],
  ["a pipe with bytes, which stay there", "exec 3<>PIPE; printf x >&3; $PROBE <&3; head -c 1 <&3", "data\nx"],
  [
    "a pipe with bytes whose writer is gone",
    "exec 3<>PIPE 4<PIPE; printf x >&3; exec 3>&-; $PROBE <&4",
    "data",
  ],
  ["a pipe whose writer is gone", "exec 3<>PIPE 4<PIPE; exec 3>&-; $PROBE <&4", "ended"],
  ["a pipe into which somebody may write", "exec 3<>PIPE; $PROBE <&3", "open"],
])("%s", async (name, script, expected) => {
  const pipe = name.replaceAll(/\W/g, "-");
  expect(await probe(`mkfifo ${pipe}; ${script.replaceAll("PIPE", pipe)}`)).toBe(expected);
});

async function probe(script: string): Promise<string> {
  const child = Bun.spawn(["sh", "-c", script], {
    cwd: folder,
    env: { ...process.env, PROBE: `${process.execPath} probe.ts` },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  return (await child.stdout.text()).trim();
}
