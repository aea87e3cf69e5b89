/** Users and groups of this machine, as `/etc/passwd` and `/etc/group` know them. */
import { readFileSync } from "node:fs";

/** The user that we run as. Where the system has none, everybody is root. */
export function ownUser(): number {
  return process.geteuid?.() ?? 0;
}

/** For messages: the name, or else the number. */
export function userName(uid: number): string {
  return lines("/etc/passwd").find(([, , id]) => id === String(uid))?.[0] ?? `user ${uid}`;
}

export function groupName(gid: number): string {
  return lines("/etc/group").find(([, , id]) => id === String(gid))?.[0] ?? String(gid);
}

/**
 * Whether nobody but us and root is in a group: many systems give each user one, so that their folders can be
 * group-writable. A group that stands in no file counts as ours where it has our number and is our first.
 */
export function isPrivateGroup(gid: number): boolean {
  // On macOS neither file knows of the people, and all of them are in the group staff.
  if (gid === 0 || process.platform === "darwin") return gid === 0;
  const entry = lines("/etc/group").find(([, , id]) => id === String(gid));
  if (entry === undefined) return gid === process.getgid?.() && gid === ownUser();
  const users = lines("/etc/passwd");
  const own = new Set(
    users.filter(([, , id]) => id === "0" || id === String(ownUser())).map(([name]) => name),
  );
  const members = (entry[3] ?? "").split(",").filter((name) => name !== "");
  const first = users.filter(([, , , id]) => id === String(gid)).map(([name]) => name ?? "");
  return [...members, ...first].every((name) => own.has(name));
}

/** How root of the machine is seen from a user namespace that does not have it; undefined elsewhere. */
export function unmappedRoot(): number | undefined {
  const ranges = lines("/proc/self/uid_map", /\s+/);
  if (ranges.length === 0 || ranges.some(([inside]) => inside === "0")) return undefined;
  const [[overflow] = []] = lines("/proc/sys/kernel/overflowuid");
  return overflow === undefined ? undefined : Number(overflow);
}

/** The fields of each line; none where the file cannot be read. */
function lines(file: string, separator: string | RegExp = ":"): string[][] {
  try {
    const text = readFileSync(file, "utf8");
    return text.split("\n").flatMap((line) => (line === "" ? [] : [line.trim().split(separator)]));
  } catch {
    return [];
  }
}
