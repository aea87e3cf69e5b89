/** Any tree that a NAR can hold, for properties. */
import fc from "fast-check";
import { sortEntries, type Tree } from "./archives.ts";

/** Bytes that a file system takes as a name: not empty, not dots, no slash, no NUL. Often not UTF-8. */
export const entryName: fc.Arbitrary<Uint8Array> = fc
  .oneof(
    fc.uint8Array({ min: 1, minLength: 1, maxLength: 20 }),
    fc.stringMatching(/^[a-c0-2.]{1,3}$/).map((text) => new TextEncoder().encode(text)),
    fc.uint8Array({ min: 0x41, max: 0x5a, minLength: 255, maxLength: 255 }),
  )
  .filter((name) => !name.includes(0x2f) && !(name.length <= 2 && name.every((byte) => byte === 0x2e)));

export const tree: fc.Arbitrary<Tree> = fc.letrec<{ tree: Tree }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthSize: "small" },
    fc.record({
      type: fc.constant("regular" as const),
      executable: fc.boolean(),
      contents: fc.uint8Array({ maxLength: 40 }),
    }),
    fc.record({
      type: fc.constant("symlink" as const),
      target: fc.uint8Array({ min: 1, minLength: 1, maxLength: 60 }),
    }),
    fc.record({
      type: fc.constant("directory" as const),
      entries: fc
        .uniqueArray(fc.tuple(entryName, tie("tree")), {
          maxLength: 6,
          selector: ([name]) => Buffer.from(name).toString("hex"),
        })
        .map(sortEntries),
    }),
  ),
})).tree;
