/** The store's questions put to Nix's own commands: the way that always works, and takes longer. */
import { NixcacheError } from "../errors.ts";
import type { CommandResult, RunCommand } from "./command.ts";
import { notValid } from "./database.ts";
import { errorIn } from "./error-text.ts";
import { refuseTooOld } from "./least-version.ts";
import type { Environment, StoreLocation } from "./location.ts";
import { type PathInfo, parsePathInfoJson } from "./path-info.ts";
import { inBatches } from "./spawn.ts";

/** `path-info` counts as experimental, and is refused where the person has not switched it on. */
export const EXPERIMENTAL = ["--extra-experimental-features", "nix-command flakes"];

export class NixCommands {
  readonly #location: Pick<StoreLocation, "storeDir" | "storeUri">;
  readonly #env: Environment;
  readonly #run: RunCommand;

  constructor(location: Pick<StoreLocation, "storeDir" | "storeUri">, env: Environment, run: RunCommand) {
    this.#location = location;
    this.#env = env;
    this.#run = run;
  }

  /** Those of `paths` that are not valid. Never fetches or builds anything. */
  async invalid(paths: readonly string[]): Promise<string[]> {
    const found: string[] = [];
    await inBatches(paths, async (batch) => {
      const argv = ["nix-store", ...this.#store(), "--check-validity", "--print-invalid", ...batch];
      const { stdout } = check(argv, await this.#run(argv, this.#env));
      found.push(...stdout.split("\n").filter((line) => line !== ""));
    });
    return found;
  }

  /** The closure in no particular order. @throws `nix-store` when a root is not valid or Nix fails. */
  async closure(roots: readonly string[]): Promise<PathInfo[]> {
    // Asked first, as path-info would try to substitute what is not there.
    const [absent] = await this.invalid(roots);
    if (absent !== undefined) throw notValid(absent);
    const infos = new Map<string, PathInfo>();
    await inBatches(roots, async (batch) => {
      const output = await this.#pathInfo(batch);
      for (const info of parsePathInfoJson(output, this.#location.storeDir)) infos.set(info.path, info);
    });
    return [...infos.values()];
  }

  async #pathInfo(paths: readonly string[]): Promise<string> {
    const argv = (format: string[]) => [
      ...["nix", ...EXPERIMENTAL, "path-info", ...this.#store()],
      ...["--recursive", "--json", ...format, ...paths],
    ];
    const plain = await this.#run(argv([]), this.#env);
    // Up to 2.32 the option is unknown; 2.34 announces that it will be asked for.
    if (plain.exitCode !== 0 && plain.stderr.includes("--json-format")) {
      const argv2 = argv(["--json-format", "2"]);
      return check(argv2, await this.#run(argv2, this.#env)).stdout;
    }
    return check(argv([]), plain).stdout;
  }

  #store(): string[] {
    return this.#location.storeUri === undefined ? [] : ["--store", this.#location.storeUri];
  }
}

function check(argv: readonly string[], result: CommandResult): CommandResult {
  if (result.exitCode === 0) return result;
  const command = argv.filter((word) => !word.startsWith("/")).join(" ");
  refuseTooOld(result.stderr);
  const reason = errorIn(result.stderr);
  throw new NixcacheError("nix-store", `\`${command}\` failed with status ${result.exitCode}: ${reason}`, {
    hint: "Run `nix store ping` to see whether the Nix store can be reached.",
    cause: new Error(result.stderr),
  });
}
