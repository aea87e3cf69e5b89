import { expect, test } from "bun:test";
import { comparePlaces, contains, type Place, wholeBefore } from "../../../src/build/place.ts";

const place = (selector: number, ...path: string[]): Place => ({ selector, path });

test("places are in the order of the walk: selectors, sets before what is in them, names bytewise", () => {
  // In UTF-16 the last two would be the other way round.
  const ordered = [
    place(0),
    place(0, "a"),
    place(0, "a", "z"),
    place(0, "a-"),
    place(0, "b"),
    place(0, "\uffff"),
    place(0, "😀"),
    place(1),
  ];
  for (const [i, a] of ordered.entries()) {
    for (const [j, b] of ordered.entries()) expect(Math.sign(comparePlaces(a, b))).toBe(Math.sign(i - j));
  }
});

test("what is in a set, and what is done before a place", () => {
  expect(contains(place(0, "a"), place(0, "a", "b"))).toBe(true);
  expect(contains(place(0, "a"), place(0, "a"))).toBe(true);
  expect(contains(place(0, "a"), place(0, "ab"))).toBe(false);
  expect(contains(place(0), place(1, "a"))).toBe(false);
  expect(wholeBefore(place(0, "h", "a", "config", "x"), place(0, "h", "b"))).toEqual(place(0, "h", "a"));
  expect(wholeBefore(place(0, "h", "a"), place(0, "p"))).toEqual(place(0, "h"));
  expect(wholeBefore(place(0, "h", "a"), place(1))).toEqual(place(0));
});
