/** Numbers as people read them. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function formatCount(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

const AGES = [
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
] as const;

/** Such as `3 days`; `now` under a minute, and for what is ahead of our clock. */
export function formatAge(ms: number): string {
  let value = ms / 60_000;
  if (value < 1) return "now";
  for (const [size, unit] of AGES) {
    if (value < size) return formatCount(Math.floor(value), unit);
    value /= size;
  }
  return formatCount(Math.floor(value), "year");
}

/** Such as `2026-11-23 17:53 UTC`. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
