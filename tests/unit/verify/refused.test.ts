/** verify tells of closures that clients refuse, although each path in them is whole. */
import { expect, test } from "bun:test";
import {
  formatPublicKey,
  generateSecretKey,
  publicKeyOf,
  type SecretKey,
} from "../../../src/nar/signing-key.ts";
import { fold } from "../../../src/protocol/fold.ts";
import { isHarmful } from "../../../src/verify/finding.ts";
import { verify } from "../../../src/verify/verify.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitPaths, party, type TestEntryOptions, testPath } from "../../support/protocol.ts";

const keyOf = (name: string, seed: number) => generateSecretKey(name, new Uint8Array(32).fill(seed));
const [OLD, NEW] = [keyOf("cache-1", 1), keyOf("cache-2", 2)];

/** Paths that are found to be refused, in a cache of these generations. */
async function refusedIn(
  generations: readonly Record<string, TestEntryOptions>[],
  given: readonly SecretKey[] = [],
): Promise<string[]> {
  using machine = party(new MemoryStore());
  for (const paths of generations) {
    const keys = Object.values(paths).flatMap(({ keys = [] }) =>
      keys.map((key) => formatPublicKey(publicKeyOf(key))),
    );
    await commitPaths(machine, paths, { keys: [...new Set(keys)] });
    machine.host.time += 60_000;
  }
  await fold(machine);
  const { findings } = await verify({ ...machine, upstreams: [], keys: given.map(publicKeyOf) });
  const refused = findings.filter(({ kind }) => kind === "reference-refused");
  expect(refused.filter((finding) => !isHarmful(finding))).toEqual([]);
  expect(findings.filter(isHarmful)).toEqual(refused);
  return refused.map(({ subject }) => subject);
}

const t = (...keys: SecretKey[]): TestEntryOptions => ({ references: ["p"], keys });
const p = (content: string, added: number, ...keys: SecretKey[]): TestEntryOptions => ({
  content,
  added,
  keys,
});

test.each<[string, Record<string, TestEntryOptions>[], SecretKey[], string[]]>([
  ["all is signed", [{ p: p("a", 1, OLD), t: t(OLD) }], [], []],
  ["a reference is not signed", [{ p: p("a", 1), t: t(OLD) }], [], ["t"]],
  ["nothing is signed", [{ p: p("a", 1), t: t() }], [], []],
  ["another build of it is signed", [{ p: p("a", 1, OLD), t: t(OLD) }, { p: p("b", 2) }], [], []],
  ["it is signed by another key", [{ p: p("a", 1, NEW), t: t(OLD) }], [], []],
  ["it is signed by another key than clients trust", [{ p: p("a", 1, NEW), t: t(OLD) }], [OLD], ["t"]],
  ["clients trust both", [{ p: p("a", 1, NEW), t: t(OLD) }], [OLD, NEW], []],
  [
    "the key of clients has signed a build",
    [{ p: p("a", 1, OLD), t: t(OLD) }, { p: p("b", 2, NEW) }],
    [OLD],
    [],
  ],
  ["clients trust another", [{ p: p("a", 1), t: t(OLD) }], [NEW], []],
])("where %s", async (_, generations, given, names) => {
  expect(await refusedIn(generations, given)).toEqual(names.map(testPath));
});
