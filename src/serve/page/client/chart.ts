/** Requests and bytes of the last hour as bars, drawn by hand. */
import type { Traffic, TrafficCount } from "./data.ts";
import { element, svg } from "./dom.ts";
import { formatCount, formatSize, formatTime, plural } from "./format.ts";

const WIDTH = 600;
const HEIGHT = 96;
const BARS = 60;
const GAP = 2;

/** Where answers come from, as the server's counters call it. */
const SOURCES: Record<string, string> = {
  cache: "from the cache",
  journal: "not published yet",
  disk: "from disk",
  upstream: "from upstream",
  none: "not found",
};

export function drawTraffic(target: HTMLElement, traffic: Traffic, now: number): void {
  const { intervals, total } = traffic;
  const requests = sum(intervals, (of) => of.requests);
  const bytes = sum(intervals, (of) => of.bytes);
  target.replaceChildren(
    element(
      "div",
      { class: "charts" },
      chart(traffic, now, "Requests", plural(requests, "request"), (of) => of.requests, formatCount),
      chart(traffic, now, "Bytes sent", formatSize(bytes), (of) => of.bytes, formatSize),
    ),
    sources(total, traffic.since),
  );
}

function chart(
  { intervals, intervalMs }: Traffic,
  now: number,
  title: string,
  inAll: string,
  value: (of: TrafficCount) => number,
  format: (value: number) => string,
): HTMLElement {
  const values = intervals.map(value);
  const most = Math.max(1, ...values);
  const step = WIDTH / BARS;
  const bars = values.map((of, index) => {
    const height = of === 0 ? 1 : Math.max(2, (of / most) * (HEIGHT - 2));
    const back = values.length - 1 - index;
    const bar = svg("rect", {
      class: of === 0 ? "empty" : "bar",
      x: WIDTH - (back + 1) * step + GAP / 2,
      y: HEIGHT - height,
      width: step - GAP,
      height,
      rx: of === 0 ? 0 : 1.5,
    });
    bar.append(svg("title", {}, `${formatTime(now - back * intervalMs)}: ${format(of)}`));
    return bar;
  });
  const label = `${title} in the last hour: ${inAll}, at most ${format(Math.max(0, ...values))} a minute`;
  return element(
    "figure",
    {},
    element("figcaption", {}, title, element("b", {}, inAll)),
    svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, preserveAspectRatio: "none" },
      ...bars,
    ),
    element(
      "p",
      { class: "axis", "aria-hidden": "true" },
      element("span", {}, "an hour ago"),
      element("span", {}, "now"),
    ),
  );
}

function sources({ sources, requests }: TrafficCount, since: number): HTMLElement {
  const known = Object.entries(sources).filter(([, count]) => count > 0);
  const parts = known
    .sort(([, a], [, b]) => b - a)
    .map(([name, count]) =>
      element("span", {}, `${SOURCES[name] ?? name} `, element("b", {}, formatCount(count))),
    );
  return element(
    "p",
    { class: "sources" },
    element(
      "span",
      { title: `since ${formatTime(since)}` },
      `${plural(requests, "request")} since the start`,
    ),
    ...parts,
  );
}

function sum(intervals: readonly TrafficCount[], value: (of: TrafficCount) => number): number {
  return intervals.reduce((all, of) => all + value(of), 0);
}
