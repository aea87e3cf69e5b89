/** Which generations are alive: the list of tags, and exact questions where that says nothing (R1, R7). */
import { type GenerationId, type GenerationName, generationId, parseTag, segmentTag } from "../cache/tags.ts";
import { mapConcurrently } from "../concurrency.ts";
import type { ProtocolContext } from "./context.ts";
import { statTag } from "./tagged.ts";

export class Liveness {
  readonly dead: Set<GenerationId>;
  readonly #context: ProtocolContext;
  readonly #alive = new Map<GenerationName, boolean>();
  /** Tags as they are listed. */
  readonly #tags = new Map<GenerationName, string>();

  constructor(context: ProtocolContext, tags: readonly string[], without: ReadonlySet<GenerationName>) {
    this.#context = context;
    for (const name of without) this.#alive.set(name, false);
    const parsed = tags.map((tag) => ({ tag, parsed: parseTag(tag) }));
    this.dead = context.database.view.dead();
    for (const { parsed: its } of parsed) if (its?.kind === "dead") this.dead.add(its.id);
    for (const { tag, parsed: its } of parsed) {
      if (its?.kind !== "segment") continue;
      this.#tags.set(its.name, tag);
      if (!this.#alive.has(its.name)) this.#alive.set(its.name, !this.#isDead(its.name));
    }
  }

  /** Settles names that the list lacks: absence from a list proves nothing, so ask for the exact tag. */
  async ask(names: readonly GenerationName[]): Promise<void> {
    const open = names.filter((name) => !this.#alive.has(name));
    const { store, concurrency, signal } = this.#context;
    await mapConcurrently(open, concurrency, async (name) => {
      const alive = !this.#isDead(name) && (await statTag(store, segmentTag(name), { signal })) !== undefined;
      this.#alive.set(name, alive);
    });
  }

  #isDead(name: GenerationName): boolean {
    return this.dead.has(generationId(name));
  }

  isAlive(name: GenerationName): boolean {
    return this.#alive.get(name) ?? false;
  }

  /** The tag of a generation, in the form that was listed, where it was. */
  tagOf(name: GenerationName): string {
    return this.#tags.get(name) ?? segmentTag(name);
  }

  live(): GenerationName[] {
    return [...this.#alive].filter(([, alive]) => alive).map(([name]) => name);
  }
}
