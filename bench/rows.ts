/** All rows, in the order of the table. */
import type { Row } from "./row.ts";
import { binary } from "./rows/binary.ts";
import { capped } from "./rows/capped.ts";
import { closure } from "./rows/closure.ts";
import { large } from "./rows/large.ts";
import { nar } from "./rows/nar.ts";
import { narinfo } from "./rows/narinfo.ts";
import { narinfoMillion } from "./rows/narinfo-million.ts";
import { publishCounts } from "./rows/publish-counts.ts";
import { publishPaths } from "./rows/publish-paths.ts";
import { refresh } from "./rows/refresh.ts";
import { start } from "./rows/start.ts";
import { startMillion } from "./rows/start-million.ts";

export const ROWS: readonly Row[] = [
  ...[narinfo, narinfoMillion, start, startMillion, refresh, nar, capped],
  ...[closure, publishCounts, publishPaths, large, binary],
];
