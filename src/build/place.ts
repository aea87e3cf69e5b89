/** Places in the order of a walk: selectors as given, in them names bytewise, a set before what is in it. */

export interface Place {
  /** Index into the selectors. */
  readonly selector: number;
  readonly path: readonly string[];
}

/** Negative where `a` comes first, 0 for the same place. */
export function comparePlaces(a: Place, b: Place): number {
  if (a.selector !== b.selector) return a.selector - b.selector;
  for (let index = 0; index < a.path.length && index < b.path.length; index++) {
    const order = Buffer.compare(Buffer.from(a.path[index] ?? ""), Buffer.from(b.path[index] ?? ""));
    if (order !== 0) return order;
  }
  return a.path.length - b.path.length;
}

/** Whether `outer` is `inner` or a set around it. */
export function contains(outer: Place, inner: Place): boolean {
  return (
    outer.selector === inner.selector &&
    outer.path.length <= inner.path.length &&
    outer.path.every((name, index) => name === inner.path[index])
  );
}

/** The greatest set around `done`, or itself, that `next` is not in: with that, all is done before `next`. */
export function wholeBefore(done: Place, next: Place): Place {
  if (done.selector !== next.selector) return { selector: done.selector, path: [] };
  let shared = 0;
  while (shared < done.path.length && done.path[shared] === next.path[shared]) shared++;
  return { selector: done.selector, path: done.path.slice(0, shared + 1) };
}
