/** Tags that become visible late, as at registries that are spread over many machines. */
import type { OutgoingAnswer } from "./proxy-answer.ts";

export class LateTags {
  readonly #lists: number;
  readonly #requests: number;
  /** Lists that will still lack a tag. */
  readonly #unlisted = new Map<string, number>();
  /** Requests by its exact name that will still find nothing. */
  readonly #unknown = new Map<string, number>();

  constructor(lists: number, requests: number) {
    this.#lists = lists;
    this.#requests = requests;
  }

  /** A tag was put. */
  add(tag: string): void {
    if (tag.startsWith("sha256:")) return;
    if (this.#lists > 0) this.#unlisted.set(tag, this.#lists);
    if (this.#requests > 0) this.#unknown.set(tag, this.#requests);
  }

  /** Whether a request by this name finds nothing yet. */
  hides(tag: string): boolean {
    return countDown(this.#unknown, tag);
  }

  /** A list of tags without those that are not visible yet. */
  async list(answer: OutgoingAnswer): Promise<OutgoingAnswer> {
    if (answer.status !== 200 || this.#unlisted.size === 0) return answer;
    const json = (await new Response(answer.body).json()) as { tags: string[] | null };
    const tags = (json.tags ?? []).filter((tag) => !countDown(this.#unlisted, tag));
    const body = new Blob([JSON.stringify({ ...json, tags })]);
    const headers = new Headers(answer.headers);
    headers.set("content-length", String(body.size));
    return { status: 200, headers, body: body.stream() };
  }
}

function countDown(map: Map<string, number>, tag: string): boolean {
  const left = map.get(tag) ?? 0;
  if (left <= 1) map.delete(tag);
  else map.set(tag, left - 1);
  return left > 0;
}
