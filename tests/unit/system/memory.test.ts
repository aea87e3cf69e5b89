import { expect, test } from "bun:test";
import { availableMemory, memoryOf, type ReadText } from "../../../src/system/memory.ts";

const GIB = 1024 ** 3;
const MEMINFO = { "/proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n" };
const files =
  (texts: Readonly<Record<string, string>>): ReadText =>
  (file) =>
    texts[file];

test.each<[string, Record<string, string>, number]>([
  ["what the kernel says", MEMINFO, 8 * GIB],
  ["half of what there is, where nobody says", {}, 10 * GIB],
  [
    "less in a container, without its page cache",
    {
      ...MEMINFO,
      "/proc/self/cgroup": "0::/a/b\n",
      "/sys/fs/cgroup/a/b/memory.max": "max\n",
      "/sys/fs/cgroup/a/b/memory.current": `${GIB}\n`,
      "/sys/fs/cgroup/a/memory.max": `${4 * GIB}\n`,
      "/sys/fs/cgroup/a/memory.current": `${3 * GIB}\n`,
      "/sys/fs/cgroup/a/memory.stat": `anon 1\ninactive_file ${2 * GIB}\n`,
    },
    3 * GIB,
  ],
  [
    "as a container shows it, which hides the way",
    {
      ...MEMINFO,
      "/proc/self/cgroup": "0::/../x\n",
      "/sys/fs/cgroup/memory.max": `${2 * GIB}`,
      "/sys/fs/cgroup/memory.current": `${GIB}`,
    },
    GIB,
  ],
  [
    "of the first version of cgroups",
    {
      ...MEMINFO,
      "/proc/self/cgroup": "5:cpu:/\n4:memory,x:/docker/1\n0::/\n",
      "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": `${2 * GIB}`,
      "/sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": `${GIB}`,
      "/sys/fs/cgroup/memory/docker/1/memory.stat": `total_inactive_file ${GIB / 2}`,
      "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
      "/sys/fs/cgroup/memory/memory.usage_in_bytes": `${GIB}`,
    },
    1.5 * GIB,
  ],
  [
    "nothing, where more is used than may be",
    {
      ...MEMINFO,
      "/proc/self/cgroup": "0::/\n",
      "/sys/fs/cgroup/memory.max": `${GIB}`,
      "/sys/fs/cgroup/memory.current": `${2 * GIB}`,
    },
    0,
  ],
])("%s", (_, texts, expected) => {
  expect(availableMemory(files(texts), 20 * GIB)).toBe(expected);
});

test("of this machine there is some, and this process holds some", () => {
  expect(availableMemory()).toBeGreaterThan(0);
  expect(memoryOf(process.pid)).toBeGreaterThan(1024 ** 2);
  expect(memoryOf(2 ** 22 + 1)).toBeUndefined();
});
