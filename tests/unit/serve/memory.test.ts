import { expect, test } from "bun:test";
import { MemoryBudget } from "../../../src/serve/memory.ts";

const KIB = 1024;
const MIB = 1024 ** 2;

test("a window is at most a quarter of what is free, and 3 MiB; never less than 64 KiB of what is wanted", () => {
  const memory = new MemoryBudget();
  expect(memory.take(10)).toBe(10);
  expect(memory.take(100 * MIB)).toBe(3 * MIB);
  const windows = Array.from({ length: 100 }, () => memory.take(100 * MIB));
  for (const [index, size] of windows.entries()) {
    expect(size).toBeLessThanOrEqual(windows[index - 1] ?? 3 * MIB);
  }
  expect(windows.at(-1)).toBe(64 * KIB);
  expect(memory.take(5)).toBe(5);
});

test("nothing is taken ahead out of the last quarter, and again once it was given back", () => {
  const memory = new MemoryBudget();
  const ahead: number[] = [];
  for (let taken = memory.takeAhead(MIB); taken > 0; taken = memory.takeAhead(MIB)) ahead.push(taken);
  expect(ahead.reduce((sum, taken) => sum + taken, 0)).toBe(12 * MIB);
  expect(memory.take(MIB)).toBe(MIB);
  expect(memory.takeAhead(1)).toBe(0);
  for (const taken of ahead) memory.giveBack(taken);
  expect(memory.takeAhead(MIB)).toBe(MIB);
});

test("garbage is collected after every 16 MiB that went through", () => {
  let collections = 0;
  const memory = new MemoryBudget(() => collections++);
  for (let i = 0; i < 64; i++) memory.handedOn(MIB);
  expect(collections).toBe(4);
});
