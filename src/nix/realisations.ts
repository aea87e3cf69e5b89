/**
 * Realisations in Nix's database. The tables are there once the experimental feature `ca-derivations` was used:
 *
 *     Realisations(id, drvPath 'sha256:<base16>', outputName, outputPath → ValidPaths, signatures space-separated)
 *     RealisationsRefs(referrer → Realisations, realisationReference → Realisations)
 *
 * Nix from 2.35 on keeps them in another table, by the path of the derivation; those are not read.
 */
import type { Database } from "bun:sqlite";
import type { Realisation } from "../nar/realisation.ts";
import { reading } from "./database.ts";

interface Row {
  id: number;
  drvPath: string;
  outputName: string;
  path: string;
  signatures: string | null;
}

const BY_PATH = `
  SELECT r.id, drvPath, outputName, path, signatures
  FROM Realisations AS r JOIN ValidPaths ON ValidPaths.id = outputPath
  WHERE path IN (SELECT value FROM json_each(?)) ORDER BY drvPath, outputName`;

const DEPENDENT = `
  SELECT d.id, drvPath, outputName, path, signatures
  FROM RealisationsRefs JOIN Realisations AS d ON d.id = realisationReference
  JOIN ValidPaths ON ValidPaths.id = outputPath WHERE referrer = ?`;

/**
 * The realisations of each of `paths` that has some.
 * @throws DatabaseUnreadable
 */
export function realisationsInDatabase(
  file: string | undefined,
  paths: readonly string[],
): Map<string, Realisation[]> {
  return reading(file, (db) => (hasTables(db) ? readAll(db, paths) : new Map()));
}

function hasTables(db: Database): boolean {
  const tables = db.query(
    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name IN ('Realisations', 'RealisationsRefs')",
  );
  return tables.all().length === 2;
}

function readAll(db: Database, paths: readonly string[]): Map<string, Realisation[]> {
  const rows = db.query<Row, [string]>(BY_PATH).all(JSON.stringify(paths));
  const dependent = db.query<Row, [number]>(DEPENDENT);
  const found = new Map<string, Realisation[]>();
  for (const row of rows) {
    const realisation = decode(row, dependent.all(row.id));
    found.set(row.path, [...(found.get(row.path) ?? []), realisation]);
  }
  return found;
}

function decode(row: Row, dependent: readonly Row[]): Realisation {
  return {
    id: idOf(row),
    outPath: baseName(row.path),
    signatures: (row.signatures ?? "").split(" ").filter((signature) => signature !== ""),
    dependentRealisations: Object.fromEntries(dependent.map((other) => [idOf(other), baseName(other.path)])),
  };
}

function idOf({ drvPath, outputName }: Row): string {
  return `${drvPath}!${outputName}`;
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
