import { expect, test } from "bun:test";
import { withoutUser } from "../../src/errors.ts";

test.each([
  ["https://user:secret@host/x", "https://…@host/x"],
  ["https://user:sec/ret@host/x", "https://…@host/x"],
  ["https://us@er:sec?r#et@host", "https://…@host"],
  ["user:secret@host", "…@host"],
  ["https://host/x?token=secret", "https://host/x?…"],
  ['got "https://user:sec/ret@host", expected "a@b"', 'got "https://…@host", expected "…@b"'],
  ["ghcr.io/owner/name@sha256:0", "ghcr.io/owner/name@sha256:0"],
])("what may be a password is not shown: %s", (text, shown) => {
  expect(withoutUser(text)).toBe(shown);
});
