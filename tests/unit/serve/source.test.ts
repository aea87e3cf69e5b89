/** Which of several sources answers for a path. */
import { expect, test } from "bun:test";
import { type Source, sourceOf } from "../../../src/serve/source.ts";
import { storeHash } from "../../support/protocol.ts";

const HASH = storeHash("p");

/** One that has this narinfo alone. */
function source(narinfo: string | undefined): Source {
  const view = { narinfo: (hash: string) => (hash === HASH ? narinfo : undefined) };
  return { view, store: {} } as unknown as Source;
}

const text = (more = "") => `StorePath: /nix/store/${HASH}-p\nReferences: \n${more}`;
const [NONE, BARE] = [source(undefined), source(text())];
const [SIGNED, ADDRESSED] = [source(text("Sig: a:b\n")), source(text("CA: fixed:a\n"))];

test.each([
  ["the only one", [BARE], BARE],
  ["the first that has it", [NONE, BARE, source(text())], BARE],
  ["one that has it signed, before one that has it unsigned", [BARE, NONE, SIGNED], SIGNED],
  ["one that has it content-addressed, too", [BARE, ADDRESSED], ADDRESSED],
  ["the first of several that have it signed", [BARE, SIGNED, ADDRESSED, source(text("Sig: c:d\n"))], SIGNED],
  ["none where none has it", [NONE, NONE], undefined],
  ["none where there is none", [], undefined],
])("%s", (_, sources, expected) => {
  const found = sourceOf(HASH, sources);
  expect(found?.source).toBe(expected as Source);
  expect(found?.narinfo).toBe(expected?.view.narinfo(HASH) as string);
});
