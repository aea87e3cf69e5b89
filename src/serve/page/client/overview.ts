/** The facts at the top, the upstreams and the traffic, kept up to date while somebody looks. */
import { drawTraffic } from "./chart.ts";
import type { CacheOverview, Overview, UpstreamOverview } from "./data.ts";
import { ask, byId, element, setText } from "./dom.ts";
import { formatAge, formatCount, formatSize, formatTime } from "./format.ts";
import { stateClass, stateText } from "./state.ts";

const REFRESH_MS = 5_000;
const COUNTING_REFRESH_MS = 1_000;

/** Told when a cache, by its number, has other contents than before. */
export interface Changes {
  publishes(cache: number): void;
  paths(cache: number): void;
}

export function startOverview(changes: Changes): void {
  let known: readonly CacheOverview[] = [];

  async function refresh(): Promise<void> {
    let next = REFRESH_MS;
    try {
      const overview = await ask<Overview>("overview", {});
      overview.caches.forEach((cache, index) => {
        showCache(cache, index, overview.now);
        tellChanges(cache, known[index], index, changes);
      });
      known = overview.caches;
      showUpstreams(overview.upstreams);
      drawTraffic(byId("traffic"), overview.traffic, overview.now);
      if (overview.caches.some(({ totals }) => totals === null)) next = COUNTING_REFRESH_MS;
    } catch {
      for (const state of document.querySelectorAll("[data-fact=state]")) {
        state.className = "state bad";
        setText(state, "The server does not answer");
      }
    }
    setTimeout(refreshWhenSeen, next);
  }

  /** Nothing is asked for while the page is in the background. */
  function refreshWhenSeen(): void {
    if (document.visibilityState === "visible") void refresh();
    else document.addEventListener("visibilitychange", refreshWhenSeen, { once: true });
  }

  void refresh();
}

function tellChanges(
  now: CacheOverview,
  before: CacheOverview | undefined,
  index: number,
  changes: Changes,
): void {
  if (before === undefined) return;
  const isPublished = now.latest?.id !== before.latest?.id || now.publishes !== before.publishes;
  if (isPublished) changes.publishes(index);
  // While they are counted whoever shows paths asks again by itself.
  if (before.totals !== null && JSON.stringify(now.totals) !== JSON.stringify(before.totals))
    changes.paths(index);
}

function showCache(cache: CacheOverview, index: number, now: number): void {
  const section = document.querySelector(`[data-cache="${index}"]`);
  const fact = (name: string) => section?.querySelector(`[data-fact=${name}]`);
  const set = (name: string, text: string) => {
    const target = fact(name);
    if (target) setText(target, text);
  };
  const state = fact("state");
  if (state) state.className = `state ${stateClass(cache)}`;
  set("state", stateText(cache, now));
  const { totals, latest, counted } = cache;
  set("paths", totals === null ? `${Math.floor(counted * 100)} %` : formatCount(totals.paths));
  set("narSize", totals === null ? "–" : formatSize(totals.narSize));
  set("fileSize", totals === null ? "–" : formatSize(totals.fileSize));
  const published = fact("published");
  const time = latest?.time == null ? "–" : timeElement(latest.time, now);
  const text = typeof time === "string" ? time : time.textContent;
  if (published && published.textContent !== text) published.replaceChildren(time);
}

/** How long ago; the moment itself on hover. */
export function timeElement(ms: number, now: number): HTMLElement {
  const date = new Date(ms);
  const datetime = Number.isNaN(date.getTime()) ? undefined : date.toISOString();
  return element("time", { datetime, title: formatTime(ms) }, formatAge(now - ms));
}

function showUpstreams(upstreams: readonly UpstreamOverview[]): void {
  const list = byId("upstreams");
  if (upstreams.length === 0) {
    if (list.childElementCount === 0)
      list.append(element("li", { class: "muted" }, "None: this cache stands alone."));
    return;
  }
  list.replaceChildren(
    ...upstreams.map(({ url, state, healthy }) =>
      element(
        "li",
        {},
        element("code", {}, url),
        state === null ? null : element("span", { class: `state ${healthy ? "good" : "bad"}` }, state),
      ),
    ),
  );
}
