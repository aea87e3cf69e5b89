/** A folder for one test, gone with it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TemporaryFolder extends Disposable {
  readonly path: string;
}

export function temporaryFolder(name = "folder"): TemporaryFolder {
  const path = mkdtempSync(join(tmpdir(), `nixcache-test-${name}-`));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}
