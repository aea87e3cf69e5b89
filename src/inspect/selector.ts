/**
 * How a person names a generation.
 *
 *     20261123t175346z-0123456789abcdef      its name, or the beginning of it that no other has; also its tags
 *     latest                                 the newest of all
 *     main, 12/merge, pin:NAME               the newest of a branch or source
 *     main@aarch64-linux                     the newest of a branch or source for a system
 *     …~2                                    two before it, of the same source, system and selection
 */
import type { Generation } from "../cache/index-layer.ts";
import { type GenerationName, generationId, parseGenerationName, parseTag } from "../cache/tags.ts";
import { NixcacheError, preview } from "../errors.ts";
import type { KnownGenerations } from "./known.ts";
import { predecessors } from "./line.ts";

export const SELECTOR_HELP = "a generation: its name, latest, a branch or source, …~1 for the one before";

/** Choices that a message lists. */
const MAX_CHOICES = 5;

/** The name in a selector that needs no list of generations to be understood. */
export function fullName(selector: string): GenerationName | undefined {
  const tag = parseTag(selector);
  return tag?.kind === "segment" ? tag.name : parseGenerationName(selector);
}

/** @throws `absent` for what is not there, `usage` for what could be several. */
export function selectGeneration(selector: string, known: KnownGenerations): GenerationName {
  const [, base = "", steps] = /^(.*?)(?:~(\d{1,6}))?$/s.exec(selector) ?? [];
  const name = select(base, selector, known);
  return steps === undefined ? name : stepBack(name, Number(steps), selector, known);
}

function select(base: string, selector: string, { live, ended }: KnownGenerations): GenerationName {
  const names = [...live, ...ended].map(({ name }) => name);
  const tag = parseTag(base);
  const id = tag?.kind === "dead" ? tag.id : undefined;
  const exact = names.find((name) => name === fullName(base) || generationId(name) === id);
  if (exact !== undefined) return exact;
  const newest = live.at(-1);
  if (base === "latest" && newest !== undefined) return newest.name;
  const branch = newestOf(base, selector, live);
  if (branch !== undefined) return branch.name;
  const beginning = base.replace(/^seg-/, "").toLowerCase();
  const [only, ...others] = beginning === "" ? [] : names.filter((name) => name.startsWith(beginning));
  if (only === undefined) throw absent(selector, names.length);
  if (others.length > 0)
    throw ambiguous(selector, "generations", [only, ...others].sort().reverse(), "more of the name");
  return only;
}

/** The newest of a branch or a source, for one system where the text goes on with it. */
function newestOf(base: string, selector: string, live: readonly Generation[]): Generation | undefined {
  const [, branch, system] = /^(.+)@([^@]+)$/s.exec(base) ?? [];
  const inSystem = branch === undefined ? [] : meanings(branch, live, system);
  const found = [...meanings(base, live), ...inSystem].find((some) => some.length > 0);
  const sources = new Set(found?.map(({ record }) => record.source));
  if (sources.size > 1) throw ambiguous(selector, "sources", [...sources].sort(), "the source");
  return found?.at(-1);
}

/** What a text may mean, what is likelier first: the branch of a pull request may be called `main` as well. */
function meanings(text: string, live: readonly Generation[], system?: string): Generation[][] {
  const tests: ((record: Generation["record"]) => boolean)[] = [
    ({ source }) => source === text,
    ({ source }) => source.endsWith(`#${text}`),
    ({ branch }) => branch === text,
  ];
  return tests.map((test) =>
    live.filter(({ record }) => test(record) && (system === undefined || record.system === system)),
  );
}

function stepBack(
  from: GenerationName,
  steps: number,
  selector: string,
  { live }: KnownGenerations,
): GenerationName {
  if (!live.some(({ name }) => name === from)) {
    throw new NixcacheError(
      "absent",
      `${preview(selector)}: ${from} has ended, and what was before it is not known`,
      { hint: "Name the other generation itself." },
    );
  }
  const before = predecessors(live);
  let name = from;
  for (let step = 0; step < steps; step++) {
    const next = before.get(name);
    if (next === undefined) {
      throw new NixcacheError(
        "absent",
        `${preview(selector)}: of the source, system and selection of ${from} there ${step === 1 ? "is" : "are"} ${step} before it, expected ${steps}`,
        { hint: "nixcache history lists the generations." },
      );
    }
    name = next.name;
  }
  return name;
}

function absent(selector: string, count: number): NixcacheError {
  const others = count === 0 ? "the cache has none" : `there are ${count} others`;
  return new NixcacheError("absent", `no generation is called ${preview(selector)}; ${others}`, {
    hint: `nixcache history lists them. What is meant is ${SELECTOR_HELP}.`,
  });
}

function ambiguous(
  selector: string,
  kind: string,
  choices: readonly string[],
  expected: string,
): NixcacheError {
  const more = choices.length > MAX_CHOICES ? ` and ${choices.length - MAX_CHOICES} more` : "";
  const listed = choices.slice(0, MAX_CHOICES).map((choice) => preview(choice));
  return new NixcacheError(
    "usage",
    `${preview(selector)} could be ${choices.length} ${kind}: ${listed.join(", ")}${more}`,
    { hint: `Name one: give ${expected}.` },
  );
}
