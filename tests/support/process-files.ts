/** What another process holds, as Linux tells it. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** How many files, sockets and the like it has open. */
export function openFiles(pid: number): number {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).filter((fd) => !isLayer(`${folder}/${fd}`)).length;
}

/** An index has one open for each layer that it shows; of one that is not shown any more the file is removed. */
function isLayer(link: string): boolean {
  try {
    return /\.sqlite-layers\/[0-9a-f]{64}$/.test(readlinkSync(link));
  } catch {
    // Closed meanwhile.
    return true;
  }
}

/** Its memory at this moment, in bytes. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}
