/**
 * The order in which the paths of a closure can be handed on: what is referred to comes first, so whoever is
 * stopped half-way holds only paths whose references are there.
 */
import { NixcacheError } from "../errors.ts";

interface Node {
  readonly path: string;
  /** Full store paths; the node's own path may be among them. */
  readonly references: readonly string[];
}

/**
 * The nodes, references first; of those that could come next, the bytewise smallest path (store paths are
 * ASCII, so JavaScript's order is bytewise). The result depends on the set alone, not on the order given.
 *
 * @throws `nix-store` when a path appears twice, a reference is not among the nodes, or references form a
 * cycle. Nix registers no cycles but self-references, which are ignored here.
 */
export function referencesFirst<T extends Node>(nodes: readonly T[]): T[] {
  const sorted = [...nodes].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
  const rank = new Map<string, number>();
  for (const [index, node] of sorted.entries()) {
    if (rank.has(node.path)) throw broken(`${node.path} is listed twice`);
    rank.set(node.path, index);
  }

  const referrers: number[][] = sorted.map(() => []);
  const missing: number[] = sorted.map(() => 0);
  for (const [index, node] of sorted.entries()) {
    for (const reference of new Set(node.references)) {
      const target = rank.get(reference);
      if (target === undefined)
        throw broken(`${node.path} refers to ${reference}, which is not in the closure`);
      if (target === index) continue;
      referrers[target]?.push(index);
      missing[index] = (missing[index] ?? 0) + 1;
    }
  }

  const ready = new MinHeap();
  for (const [index, count] of missing.entries()) if (count === 0) ready.push(index);
  const result: T[] = [];
  for (let index = ready.pop(); index !== undefined; index = ready.pop()) {
    const node = sorted[index];
    if (node === undefined) break;
    result.push(node);
    for (const referrer of referrers[index] ?? []) {
      const left = (missing[referrer] ?? 0) - 1;
      missing[referrer] = left;
      if (left === 0) ready.push(referrer);
    }
  }
  if (result.length < sorted.length) {
    const stuck = sorted.filter((_, index) => (missing[index] ?? 0) > 0);
    throw broken(`the references form a cycle: ${findCycle(stuck).join(" → ")}`);
  }
  return result;
}

/** Every stuck node refers to another stuck one, so following such references must come round. */
function findCycle(stuck: readonly Node[]): string[] {
  const byPath = new Map(stuck.map((node) => [node.path, node]));
  const trail: string[] = [];
  const seenAt = new Map<string, number>();
  let node = stuck[0];
  while (node !== undefined) {
    const start = seenAt.get(node.path);
    if (start !== undefined) return [...trail.slice(start), node.path];
    seenAt.set(node.path, trail.length);
    trail.push(node.path);
    const self = node.path;
    const next: string | undefined = node.references.find((path) => path !== self && byPath.has(path));
    node = next === undefined ? undefined : byPath.get(next);
  }
  return trail;
}

function broken(message: string): NixcacheError {
  return new NixcacheError("nix-store", message, {
    hint: "The Nix store contradicts itself; check it with `nix-store --verify`.",
  });
}

/** A binary heap of integers, smallest first. */
class MinHeap {
  readonly #items: number[] = [];

  push(value: number): void {
    const items = this.#items;
    let at = items.length;
    items.push(value);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = items[parent] as number;
      if (above <= value) break;
      items[at] = above;
      at = parent;
    }
    items[at] = value;
  }

  pop(): number | undefined {
    const items = this.#items;
    const top = items[0];
    const last = items.pop();
    if (top === undefined || last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && (items[child + 1] as number) < (items[child] as number)) child += 1;
      const below = items[child] as number;
      if (below >= last) break;
      items[at] = below;
      at = child;
    }
    items[at] = last;
    return top;
  }
}
