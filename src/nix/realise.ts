/**
 * Builds or substitutes outputs of derivations, by `nix-store --realise`: every version takes derivations by
 * their paths, where `nix build` wants `^*` behind them from 2.13 on, and nothing is evaluated again.
 */
import { refuseTooOld } from "./least-version.ts";
import { type LinesResult, runLines } from "./lines.ts";
import type { Environment } from "./location.ts";
import { type LogEvent, parseLogLine } from "./log-event.ts";
import { inBatches } from "./spawn.ts";

export interface RealiseOptions {
  readonly env: Environment;
  readonly cwd?: string | undefined;
  readonly storeRoot?: string | undefined;
  /** Ends the builds. */
  readonly signal?: AbortSignal | undefined;
  /** More arguments, such as `--option extra-substituters URL`. */
  readonly extraArgs?: readonly string[] | undefined;
  onEvent(event: LogEvent): void;
}

/**
 * Goes on after failures. What became of each derivation the events say, and the store.
 *
 * @param derivations paths, with `!NAME,NAME` behind them where only these outputs are wanted
 * @returns how the command ended that failed last, or the last one.
 * @throws `nix-store` when it cannot be started, or is too old.
 */
export async function realise(derivations: readonly string[], options: RealiseOptions): Promise<LinesResult> {
  const { storeRoot, extraArgs = [] } = options;
  const command = [
    ...["nix-store", "--realise", "--keep-going"],
    // Or else build logs come twice: as plain messages too, which do not say whose they are.
    "--no-build-output",
    // Whoever must keep the results keeps them by `hold`.
    "--no-gc-warning",
    ...["--log-format", "internal-json"],
    ...(storeRoot === undefined ? [] : ["--store", storeRoot]),
    ...extraArgs,
  ];
  let ended: LinesResult = { exitCode: 0, signal: null, output: "" };
  await inBatches(derivations, async (batch) => {
    if (options.signal?.aborted) return;
    const result = await runLines([...command, ...batch], {
      ...options,
      onLine(line) {
        // An older one has no events to give.
        refuseTooOld(line);
        options.onEvent(parseLogLine(line));
      },
    });
    if (result.exitCode !== 0 || ended.exitCode === 0) ended = result;
  });
  return ended;
}
