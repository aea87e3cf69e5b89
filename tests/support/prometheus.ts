/**
 * A strict reader of Prometheus's text format, which refuses what promtool would complain of: families that are
 * not introduced or come twice, series that come twice, names and labels out of grammar, histograms that shrink.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\[\\\\"n])*"';
const HELP = new RegExp(`^# HELP (${NAME}) ((?:[^\\\\\\n]|\\\\[\\\\n])+)$`);
const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram)$`);
const SAMPLE = new RegExp(
  `^(${NAME})(?:\\{(${LABEL}(?:,${LABEL})*)\\})? (-?\\d+(?:\\.\\d+)?(?:e[+-]\\d+)?|[+-]Inf|NaN)$`,
);

/** Values by series, as `name{label="value"}`. @throws at the first line that is wrong */
export function parsePrometheus(text: string): Map<string, number> {
  if (!text.endsWith("\n")) throw new Error("the last line does not end");
  const series = new Map<string, number>();
  const families = new Set<string>();
  const lines = text.slice(0, -1).split("\n");
  for (let at = 0; at < lines.length; ) {
    const [, name = ""] = HELP.exec(lines[at] ?? "") ?? [];
    const [, same, type = ""] = TYPE.exec(lines[at + 1] ?? "") ?? [];
    if (name === "" || name !== same) throw new Error(`no HELP and TYPE: ${lines[at]}, ${lines[at + 1]}`);
    if (families.has(name)) throw new Error(`${name} comes twice`);
    const isWrong = /_(?:count|sum|bucket)$/.test(name) || name.endsWith("_total") !== (type === "counter");
    if (isWrong) throw new Error(`${name} is not named as a ${type}`);
    families.add(name);
    const own = new Map<string, number>();
    for (at += 2; at < lines.length && !lines[at]?.startsWith("#"); at++) {
      const line = lines[at] ?? "";
      const [, sampled = "", labels = "", value = ""] = SAMPLE.exec(line) ?? [];
      const suffix = sampled.startsWith(name) ? sampled.slice(name.length) : "?";
      const suffixes = type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
      if (!suffixes.includes(suffix)) throw new Error(`not a sample of ${name}: ${line}`);
      const key = labels === "" ? sampled : `${sampled}{${labels}}`;
      if (own.has(key)) throw new Error(`${key} comes twice`);
      own.set(key, value.endsWith("Inf") ? Number(`${value}inity`) : Number(value));
    }
    if (own.size === 0) throw new Error(`${name} has no samples`);
    if (type === "histogram") checkHistogram(name, own);
    for (const [key, value] of own) series.set(key, value);
  }
  return series;
}

function checkHistogram(name: string, samples: ReadonlyMap<string, number>): void {
  const last = new Map<string, { le: number; count: number }>();
  for (const [key, count] of samples) {
    const [, others = "", bound = ""] = /_bucket\{(.*?),?le="([^"]+)"\}$/.exec(key) ?? [];
    if (bound === "") continue;
    const le = bound === "+Inf" ? Number.POSITIVE_INFINITY : Number(bound);
    const before = last.get(others) ?? { le: Number.NEGATIVE_INFINITY, count: 0 };
    if (!(le > before.le) || count < before.count) throw new Error(`${key} is out of order`);
    last.set(others, { le, count });
  }
  for (const [labels, { le, count }] of last) {
    const total = samples.get(labels === "" ? `${name}_count` : `${name}_count{${labels}}`);
    if (le !== Number.POSITIVE_INFINITY || total !== count) throw new Error(`${name}{${labels}} has no end`);
    if (!samples.has(labels === "" ? `${name}_sum` : `${name}_sum{${labels}}`)) throw new Error("no sum");
  }
}
