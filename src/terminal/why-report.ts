/** Why a path is in a cache, for people and for programs. */
import { lineOf } from "../cache/record.ts";
import { type Holder, isHeld, type Way, type Why } from "../inspect/why.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { formatCount } from "./format.ts";
import { agoText, shown, sourceText, timeText } from "./generation.ts";
import { resultJson } from "./result-json.ts";
import { type Paint, painter, type Screen, sentence } from "./screen.ts";

/** Generations of one source with one fate that are told one by one. */
const MAX_HOLDERS = 3;

const UNADOPTED =
  "It is in the index of nixcache-oci that is here. No generation has adopted that yet: the first publish or gc does.";

/** What is asked about, in words: the path or its hash. */
export function subjectOf({ path }: Why, hash: string): string {
  return path ?? `${STORE_DIR}/${hash}-…`;
}

export function whyLines(why: Why, hash: string, screen: Screen | undefined, now: number): string[] {
  const paint = painter(screen);
  const subject = paint("bold", subjectOf(why, hash));
  const foreign = why.unadopted ? sentence(UNADOPTED, "", screen) : [];
  if (why.holders.length === 0 && why.unadopted) return [subject, ...foreign];
  if (why.holders.length === 0) {
    const known = why.unread.length > 0 ? "no generation that can be read" : "no generation";
    return [
      `${subject} is in ${known}`,
      ...goneSentences(why, now).flatMap((text) => sentence(text, "", screen)),
    ];
  }
  const lines = [...Map.groupBy(why.holders, ({ record }) => lineOf(record)).values()];
  return [
    `${subject} is in ${formatCount(why.holders.length, "generation")}`,
    ...foreign,
    ...lines.flatMap((holders) => ["", ...holderLines(holders, screen, now)]),
  ];
}

/** @param holders of one source, system and selection, the newest first */
function holderLines(holders: readonly Holder[], screen: Screen | undefined, now: number): string[] {
  const paint = painter(screen);
  const [newest] = holders as [Holder];
  const byFate = Map.groupBy(holders, ({ ends, reason }) => {
    const fate = ends ? paint("yellow", "the next gc ends it") : paint("green", "stays");
    return `${fate}: ${shown(reason)}`;
  });
  const fates = [...byFate].flatMap(([fate, some]) => {
    const more = some.length > MAX_HOLDERS ? [`    … ${some.length - MAX_HOLDERS} older`] : [];
    const told = some.slice(0, MAX_HOLDERS).map((holder) => `    ${holder.name}  ${timeText(holder, now)}`);
    return [...sentence(fate, "  ", screen), ...told, ...more];
  });
  return [sourceText(newest.record), ...wayLines(newest.root, paint), ...fates];
}

function wayLines(root: Way | undefined, paint: Paint): string[] {
  if (root === undefined) return ["  no root leads to it by what this cache has of its closure"];
  const [first, ...others] = root.chain.map((path) => path.slice(path.lastIndexOf("/") + 1));
  return [
    `  ${paint("dim", "through")} ${shown(root.output)}`,
    `    ${first}`,
    ...others.map((path) => `    ${paint("dim", "→")} ${path}`),
  ];
}

function goneSentences({ lastHolder, leftAt }: Why, now: number): string[] {
  const sentences: string[] = [];
  if (lastHolder !== undefined) {
    const { name, endedAt } = lastHolder;
    const when = endedAt === undefined ? "" : ` on ${agoText(endedAt, now)}`;
    sentences.push(
      `The last to hold it was ${name}, which gc ended${when}.`,
      `Until that is deleted it can be read: nixcache serve --at ${name}`,
    );
  }
  if (leftAt !== undefined) {
    sentences.push(`It had left the cache when this machine read the index on ${agoText(leftAt, now)}.`);
  }
  if (sentences.length > 0) return sentences;
  return [
    "Since when is not known: nothing that has ended and can still be read held it, and the index of this machine has not had it in the last 35 days.",
    "What an upstream cache has is left out of every publish.",
  ];
}

export function whyJson(cacheName: string, hash: string, why: Why): string {
  const { path, holders, lastHolder, leftAt, unadopted, unread } = why;
  const time = (ms: number | undefined) => (ms === undefined ? null : new Date(ms).toISOString());
  return resultJson({
    ...{ cache: cacheName, path: path ?? null, hash, held: isHeld(why) },
    generations: holders.map(({ name, record, ends, rule, reason, root }) => {
      const { source, branch, system, selection, time } = record;
      return {
        ...{ generation: name, time, source, branch, system, selection, ends, rule, reason },
        root: root?.output ?? null,
        chain: root?.chain ?? null,
      };
    }),
    lastHolder:
      lastHolder === undefined ? null : { generation: lastHolder.name, endedAt: time(lastHolder.endedAt) },
    leftIndexAt: time(leftAt),
    ...{ unadopted, unread },
  });
}
