/** Derivations that a person names by their paths: nothing is evaluated. */
import { readOutputsOf } from "../nix/derivation.ts";
import { NoStorePath } from "../nix/no-store-path.ts";
import type { NixStore } from "../nix/store.ts";
import { type Discovery, type LeftOut, lackingOutputs, selectOutputs, type Target } from "./discovery.ts";
import type { DerivationName } from "./installable.ts";

/**
 * @param system the system that this machine builds for
 * @throws `nix-store` when the store cannot be read
 */
export async function findDerivations(
  named: readonly DerivationName[],
  store: Pick<NixStore, "resolve" | "realPath">,
  system: string,
): Promise<Discovery> {
  const targets = new Map<string, Target>();
  const missing: LeftOut[] = [];
  for (const { path, outputs: wanted } of named) {
    const drvPath = await store.resolve(path).catch((error: unknown) => {
      if (!(error instanceof NoStorePath)) throw error;
      missing.push({ attribute: path, reason: error.message });
      return undefined;
    });
    if (drvPath === undefined) continue;
    const attribute = drvPath.slice(drvPath.lastIndexOf("/") + 1);
    const all = await readOutputsOf(store.realPath(drvPath), drvPath);
    missing.push(...lackingOutputs(attribute, all, wanted));
    const outputs = selectOutputs(all, wanted, targets.get(drvPath)?.outputs);
    if (Object.keys(outputs).length === 0) continue;
    const name = attribute.replace(/^[^-]*-|\.drv$/g, "");
    targets.set(drvPath, { attribute, name, drvPath, outputs, system });
  }
  return { targets: [...targets.values()], missing, broken: [], skipped: [] };
}
