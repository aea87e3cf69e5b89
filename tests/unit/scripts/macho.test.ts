import { expect, test } from "bun:test";
import { withoutSignature } from "../../../scripts/macho.ts";

const SIGNATURE = 0x1d;

/** A Mach-O file of three commands: __TEXT, __LINKEDIT, and one of a kind that says where its data is. */
function machO({ machine = 0x01000007, kind = SIGNATURE, after = 0 } = {}): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(5100 + after).fill(0xee);
  const view = new DataView(bytes.buffer);
  const words = (at: number, ...values: number[]) => {
    for (const [index, value] of values.entries()) view.setUint32(at + index * 4, value, true);
  };
  bytes.fill(0, 0, 192);
  words(0, 0xfeedfacf, machine, 3, 2, 3, 72 + 72 + 16, 0, 0);
  const segment = (at: number, name: string, offset: number, size: number) => {
    words(at, 0x19, 72);
    bytes.set(Buffer.from(name), at + 8);
    for (const [field, value] of [
      [32, 8192],
      [40, offset],
      [48, size],
    ] as const) {
      view.setBigUint64(at + field, BigInt(value), true);
    }
  };
  segment(32, "__TEXT", 0, 500);
  segment(104, "__LINKEDIT", 500, 4600);
  words(176, kind, 16, 5000, 100);
  return bytes;
}

test("the signature goes, with its command and its place in the segment", () => {
  const before = machO();
  const after = withoutSignature(machO());
  const view = new DataView(after.buffer);
  expect(after.length).toBe(5000);
  expect([view.getUint32(16, true), view.getUint32(20, true)]).toEqual([2, 144]);
  expect(after.slice(176, 192).every((byte) => byte === 0)).toBe(true);
  expect([136, 144, 152].map((at) => view.getBigUint64(at, true))).toEqual([8192n, 500n, 4500n]);
  // All else is as it was.
  const changed = [...after.keys()].filter((at) => after[at] !== before[at]);
  const allowed = (at: number) => (at >= 16 && at < 24) || (at >= 136 && at < 160) || (at >= 176 && at < 192);
  expect(changed.filter((at) => !allowed(at))).toEqual([]);
});

test.each([
  ["an executable for Apple's processors", () => machO({ machine: 0x0100000c })],
  ["one without a signature", () => machO({ kind: 0x2 })],
  ["an ELF file", () => new Uint8Array(Buffer.concat([Buffer.from("\x7fELF"), Buffer.alloc(100)]))],
])("%s stays as it is", (_, make) => {
  expect(withoutSignature(make())).toEqual(make());
});

test("a signature that is not at the end is not touched", () => {
  expect(() => withoutSignature(machO({ after: 1 }))).toThrow("not the last part");
});
