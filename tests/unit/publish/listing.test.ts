/** The listing that is made while a NAR is dumped. */
import { describe, expect, test } from "bun:test";
import { MAX_NAR_DEPTH } from "../../../src/nar/archive.ts";
import { NarListing } from "../../../src/publish/listing.ts";

const name = (text: string) => Buffer.from(text);
const FILE = { executable: false, size: 3, offset: 96 };

/** Of folders in each other, the innermost with a file. */
function nested(depth: number): NarListing {
  const listing = new NarListing();
  for (let level = 0; level < depth; level++) listing.directory(level === 0 ? undefined : name("d"));
  listing.regular(depth === 0 ? undefined : name("f"), FILE);
  for (let level = 0; level < depth; level++) listing.endDirectory();
  return listing;
}

describe("a listing", () => {
  test.each([0, 1, 3, MAX_NAR_DEPTH])("of a tree of depth %d", (depth) => {
    const file = '{"type":"regular","size":3,"narOffset":96}';
    let root = file;
    for (let level = depth; level > 0; level--) {
      const entry = level === depth ? "f" : "d";
      root = `{"type":"directory","entries":{"${entry}":${root}}}`;
    }
    expect(nested(depth).finish()).toBe(`{"version":1,"root":${root}}`);
  });

  test("none of a tree that readers of NARs would refuse", () => {
    expect(nested(MAX_NAR_DEPTH + 1).finish()).toBeUndefined();
  });

  test("none of what has not ended, or was never told of", () => {
    const listing = new NarListing();
    expect(listing.finish()).toBeUndefined();
    listing.directory(undefined);
    listing.symlink(name("l"), name("target"));
    expect(listing.finish()).toBeUndefined();
    listing.endDirectory();
    expect(listing.finish()).toBe(
      '{"version":1,"root":{"type":"directory","entries":{"l":{"type":"symlink","target":"target"}}}}',
    );
  });

  test("none with a name that is not UTF-8", () => {
    const listing = new NarListing();
    listing.directory(undefined);
    listing.regular(new Uint8Array([0xff]), FILE);
    listing.endDirectory();
    expect(listing.finish()).toBeUndefined();
  });
});
