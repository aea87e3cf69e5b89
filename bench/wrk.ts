/** wrk, which asks for paths of a list at random over 16 connections that it keeps. https://github.com/wg/wrk */
import { join } from "node:path";
import { type Bench, time } from "./bench.ts";
import type { Sample } from "./row.ts";

const CONNECTIONS = 16;

const SCRIPT = `
local requests, count = {}, 0
function init(arguments)
  for path in io.lines(arguments[1]) do
    count = count + 1
    requests[count] = wrk.format("GET", path)
  end
end
function request()
  return requests[math.random(count)]
end
`;

/** @param paths file with a path a line */
export async function wrk(bench: Bench, url: string, paths: string, seconds: number): Promise<Sample> {
  const script = join(bench.folder, "wrk.lua");
  await Bun.write(script, SCRIPT);
  const load = ["-t1", `-c${CONNECTIONS}`, `-d${seconds}s`, "--latency"];
  const { stdout } = await time(["wrk", ...load, "-s", script, url, "--", paths]);
  const rate = Number(/^Requests\/sec:\s+([\d.]+)$/m.exec(stdout)?.[1]);
  const [, figure, unit = ""] = /^\s+99%\s+([\d.]+)(us|ms|s)$/m.exec(stdout) ?? [];
  const p99 = Number(figure) * (MILLISECONDS[unit] ?? Number.NaN);
  if (!(rate > 0 && p99 > 0)) throw new Error(`wrk said\n${stdout}`);
  return { rate, p99 };
}

const MILLISECONDS: Readonly<Record<string, number>> = { us: 0.001, ms: 1, s: 1000 };
