/** Numbers and times as the page shows them, the same from the server and in the browser. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const;

export function formatSize(bytes: number | null): string {
  if (bytes === null) return "unknown";
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

/** 1234567 → 1,234,567 */
export function formatCount(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ",");
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${formatCount(count)} ${count === 1 ? one : many}`;
}

const STEPS = [
  [60, "second"],
  [60, "minute"],
  [24, "hour"],
  [30, "day"],
  [12, "month"],
] as const;

/** Such as `3 hours ago`. */
export function formatAge(ms: number): string {
  if (ms < 0 && ms > -60_000) return "just now";
  let value = Math.abs(ms) / 1000;
  if (value < 10) return "just now";
  let unit: string = "year";
  for (const [size, name] of STEPS) {
    if (value < size) {
      unit = name;
      break;
    }
    value /= size;
  }
  const whole = plural(Math.floor(value), unit);
  return ms < 0 ? `in ${whole}` : `${whole} ago`;
}

/** Such as `2026-11-23 17:53 UTC`; of any number that is no time, the number. */
export function formatTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime())
    ? String(ms)
    : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

/** Name and version, cut where Nix cuts them: at the first dash that no letter follows. */
export function splitName(full: string): { name: string; version: string } {
  const cut = full.search(/-[^A-Za-z]/);
  return cut <= 0 ? { name: full, version: "" } : { name: full.slice(0, cut), version: full.slice(cut + 1) };
}
