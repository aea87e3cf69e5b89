/** A whole publish and a whole read over a double of a registry, each by a machine of its own. */

import { entryOf } from "../../src/cache/entry.ts";
import { systemNetwork } from "../../src/oci/network.ts";
import { openRegistry } from "../../src/oci/registry.ts";
import type { RetryPolicy } from "../../src/oci/retry.ts";
import { PATIENT } from "../../src/oci/retry.ts";
import type { Store } from "../../src/oci/store.ts";
import { refresh } from "../../src/protocol/refresh.ts";
import { Compressor } from "../../src/publish/nar-file.ts";
import { type PublishContext, type PublishResult, publish } from "../../src/publish/publish.ts";
import { readNar } from "../../src/serve/nar.ts";
import { silentProgress } from "../../src/terminal/progress.ts";
import { party, storeHash, TestHost, type TestParty } from "./protocol.ts";
import { noise, type TestPath, testClosure } from "./publish.ts";
import { DOUBLE_REPOSITORY, type RegistryDouble } from "./registry-double.ts";

/** One in a pack, and one whose NAR is a blob of its own. */
export const PATHS: readonly TestPath[] = [
  { name: "small", size: 3000 },
  { name: "large", size: 1_500_000, references: ["small"] },
];

/** Waits only move the host's clock. */
export function openAt(
  { host: address }: Pick<RegistryDouble, "host">,
  host: TestHost,
  access: "read" | "write" = "write",
  policy: RetryPolicy = PATIENT,
): Store {
  const credentials = async () =>
    access === "write"
      ? ({ kind: "password", username: "somebody", password: "ghp_secret" } as const)
      : undefined;
  return openRegistry(
    { kind: "registry", scheme: "http", host: address, repository: DOUBLE_REPOSITORY },
    { host, network: { ...systemNetwork(host), timer: () => () => {} }, policy, credentials, access },
  );
}

export interface Published {
  readonly result: PublishResult;
  readonly warnings: readonly string[];
  readonly machine: TestParty;
}

/** Publishes as a machine that has never seen the cache. */
export async function publishOver(
  double: Pick<RegistryDouble, "host">,
  paths: readonly TestPath[] = PATHS,
  more: Partial<PublishContext> = {},
): Promise<{ result: PublishResult; warnings: readonly string[] }> {
  const host = new TestHost();
  using machine = party(openAt(double, host), host);
  return publishFrom(machine, paths, more);
}

/** Publishes from a machine that may have seen the cache before. */
export async function publishFrom(
  machine: TestParty,
  paths: readonly TestPath[],
  more: Partial<PublishContext> = {},
): Promise<{ result: PublishResult; warnings: readonly string[] }> {
  const { closure, dump } = testClosure(paths);
  const result = await publish(
    closure,
    { tool: "test", source: "repository", selection: "packages", roots: {} },
    {
      ...machine,
      ...{ upstreams: [], dump, key: undefined, compressor: new Compressor(3, 1) },
      ...{ partBytes: 1 << 30, unitsAtOnce: 2, progress: silentProgress() },
      ...more,
    },
  );
  return { result, warnings: machine.warnings };
}

/** Names of those paths whose NARs come back right, to somebody without credentials who has never seen the cache. */
export async function readOver(
  double: Pick<RegistryDouble, "host">,
  paths: readonly TestPath[] = PATHS,
): Promise<string[]> {
  const host = new TestHost();
  using machine = party(openAt(double, host, "read"), host);
  await refresh(machine, { list: true });
  // As serve does from then on: under the condition that the root has changed.
  await refresh(machine);
  const good: string[] = [];
  for (const { name, content = name, size = 500 } of paths) {
    const line = machine.database.view.line(storeHash(name));
    if (line === undefined) continue;
    const bytes = await readNar({ parts: entryOf(line).parts, fileHash: undefined }, machine.store);
    const nar = Bun.zstdDecompressSync(bytes as Uint8Array<ArrayBuffer>);
    if (Buffer.from(nar).equals(noise(content, size))) good.push(name);
  }
  return good;
}
