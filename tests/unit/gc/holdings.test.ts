/** Which blobs a generation holds: those of all its manifests together, each once. */
import { expect, test } from "bun:test";
import { generationId } from "../../../src/cache/tags.ts";
import { collectGarbage } from "../../../src/gc/gc.ts";
import { readHoldings } from "../../../src/gc/holdings.ts";
import { GenerationWriter } from "../../../src/protocol/generation.ts";
import { DAY, MAIN_LINE, STRETCH_POLICY } from "../../support/gc-stretch.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitNames, party, type TestParty, testEntry, testRecord } from "../../support/protocol.ts";
import { indexLayer } from "../../support/segments.ts";

/** A generation whose blobs are in a hold for each, but for the last one, which its segment names. */
async function commitHeld(context: TestParty, names: readonly string[], source: string): Promise<string> {
  const writer = new GenerationWriter(context, {});
  const entries = names.map((name) => testEntry(name));
  for (const [at, { blob }] of entries.entries()) {
    await context.store.writeBlob(blob);
    await writer.uploaded(blob);
    if (at < entries.length - 1) await writer.holdAll();
  }
  const lines = entries.map(({ line }) => line);
  const blobs = entries.map(({ blob }) => blob);
  const record = testRecord(lines, context.host, { ...MAIN_LINE, source });
  const result = await writer.commit(record, lines, blobs);
  if (!("committed" in result)) throw new Error("not committed");
  return result.committed;
}

const size = (...names: string[]) => names.reduce((sum, name) => sum + testEntry(name).blob.size, 0);

test("a generation with holds holds what its segment and each of them names, and a shared blob counts once", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const held = await commitHeld(context, ["a", "bb", "ccc", "shared"], "one");
  const plain = await commitNames(context, ["dddd", "shared"], { ...MAIN_LINE, source: "two" });
  expect(store.tagsOf("hold-")).toHaveLength(3);
  for (const tags of [[...store.tags.keys()], [...store.tags.keys()].reverse()]) {
    const holdings = await readHoldings(context, tags);
    const bytes = (...names: string[]) => holdings.bytes(names.map(generationId));
    const index = (name: string) => store.blobs.get(indexLayer(store, name))?.length ?? 0;
    expect(bytes(held)).toBe(size("a", "bb", "ccc", "shared") + index(held));
    expect(bytes(plain)).toBe(size("dddd", "shared") + index(plain));
    expect(bytes(held, plain)).toBe(bytes(held) + bytes(plain) - size("shared"));
  }
});

test("--max-size ends a generation for what its holds name, too", async () => {
  const store = new MemoryStore();
  using context = party(store);
  const many = Array.from({ length: 20 }, (_, at) => `large-${at}`);
  const large = await commitHeld(context, many, "old");
  context.host.time += DAY;
  const newest = await commitNames(context, ["new"], { ...MAIN_LINE, source: "old" });
  context.host.time += 2 * DAY;
  const holdings = await readHoldings(context, [...store.tags.keys()]);
  const maxBytes = holdings.bytes([large, newest].map(generationId)) - 1;
  const policy = { ...STRETCH_POLICY, retentionMs: 60 * DAY, maxBytes };
  const { decisions, excessBytes } = await collectGarbage(context, policy, { dryRun: true });
  expect(decisions.filter(({ ends }) => ends).map(({ name, rule }) => [name, rule])).toEqual([
    [large, "max-size"],
  ]);
  expect(excessBytes).toBe(0);
});
