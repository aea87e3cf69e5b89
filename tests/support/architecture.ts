/** Checks sources against a table of areas: who may import whom, and what pure code must not touch. */
import { posix } from "node:path";

export interface Area {
  readonly name: string;
  /** 0 is pure; 1 adapters; 2 use cases; 3 the command line. */
  readonly layer: 0 | 1 | 2 | 3;
  /** Globs of paths relative to the sources. A file belongs to the first area that has one for it. */
  readonly files: readonly string[];
  /** Names of other areas. */
  readonly mayImport: readonly string[];
}

/** Modules that do I/O or start programs: not for layer 0. */
const IMPURE_MODULES =
  /^(bun:sqlite|bun:ffi|(node:)?(fs|fs\/promises|child_process|net|tls|dgram|dns|http|https|http2|os|worker_threads))$/;

/** What reaches outside without an import. `new Date()` reads the clock, `new Date(value)` does not. */
const IMPURE_GLOBALS =
  /(?<![\w.#])(fetch|setTimeout|setInterval)\s*\(|\bDate\.now\b|\bnew Date\(\)|\bMath\.random\b|\bperformance\.now\b|\bcrypto\.(getRandomValues|randomUUID)\b|\bBun\.(file|write|spawn|spawnSync|serve|connect|listen|sleep|\$)/;

const ENVIRONMENT =
  /\bprocess\s*(\.\s*env|\[)|\bBun\.env\b|\bimport\.meta\.env\b|\bimport\s*\{[^}]*\benv\b[^}]*\}\s*from\s*"(node:)?process"/;

/**
 * Every violation as `file imports file: why` or `file: why`, sorted.
 *
 * @param sources text by path relative to the sources, with `/`.
 */
export function findViolations(sources: ReadonlyMap<string, string>, areas: readonly Area[]): string[] {
  const found: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [file, text] of sources) {
    const code = withoutComments(text);
    const area = areaOf(file, areas);
    const imports = importsOf(code);
    graph.set(file, []);
    if (area === undefined) {
      found.push(`${file}: it belongs to no area; add it to the table`);
      continue;
    }
    for (const specifier of imports) {
      if (!specifier.startsWith(".")) {
        if (area.layer === 0 && IMPURE_MODULES.test(specifier)) {
          found.push(`${file} imports ${specifier}: ${area.name} is pure`);
        }
        continue;
      }
      const target = posix.join(posix.dirname(file), specifier);
      // Such as ../config/flake.nix, for init: data, no code.
      if (target.startsWith("../") && /\.(json|nix|yml)$/.test(target)) continue;
      if (!sources.has(target)) {
        found.push(`${file} imports ${target}: there is no such source`);
        continue;
      }
      graph.get(file)?.push(target);
      const targetArea = areaOf(target, areas);
      if (targetArea === undefined || targetArea === area || area.mayImport.includes(targetArea.name))
        continue;
      found.push(`${file} imports ${target}: ${area.name} may not import ${targetArea.name}`);
    }
    const bare = withoutTexts(code);
    if (area.layer < 3 && ENVIRONMENT.test(code)) {
      found.push(`${file}: only layer 3 reads the environment`);
    }
    const impure = area.layer === 0 ? IMPURE_GLOBALS.exec(bare) : null;
    if (impure !== null)
      found.push(`${file}: ${area.name} is pure, and it uses ${impure[0].replace(/\s*\($/, "")}`);
  }
  return [...found, ...findCycles(graph)].sort();
}

/** Defects of the table itself: names that are none, arrows that point up, areas that allow each other. */
export function checkTable(areas: readonly Area[]): string[] {
  const byName = new Map(areas.map((area) => [area.name, area]));
  const found: string[] = [];
  for (const area of areas) {
    for (const name of area.mayImport) {
      const target = byName.get(name);
      if (target === undefined) found.push(`${area.name} may import ${name}, which is no area`);
      else if (target.layer > area.layer) found.push(`${area.name} may import ${name}, which is above it`);
      else if (target.mayImport.includes(area.name))
        found.push(`${area.name} and ${name} may import each other`);
    }
  }
  return found;
}

function areaOf(file: string, areas: readonly Area[]): Area | undefined {
  return areas.find((area) => area.files.some((glob) => new Bun.Glob(glob).match(file)));
}

/** Types count too: who needs another's types knows it. */
function importsOf(code: string): string[] {
  const statement =
    /(?:^|[;\n])\s*(?:import|export)\s+(?:type\s+)?(?:[\w$]+\s*,?\s*)?(?:\*(?:\s*as\s+[\w$]+)?|\{[^}]*\})?\s*from\s*["']([^"']+)["']/g;
  const bare = /(?:^|[;\n])\s*import\s*["']([^"']+)["']/g;
  const dynamic = /\b(?:import|require)\s*\(\s*["']([^"']+)["']/g;
  return [statement, bare, dynamic].flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => match[1] as string),
  );
}

const TEXT = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/;
const COMMENT = /\/\/[^\n]*|\/\*[\s\S]*?\*\//;

function withoutComments(source: string): string {
  const pattern = new RegExp(`(${TEXT.source})|${COMMENT.source}`, "g");
  return source.replace(pattern, (_, text: string | undefined) => text ?? " ");
}

/** Quoted texts emptied; template texts stay, as code may be inside. */
function withoutTexts(code: string): string {
  return code.replace(/"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g, '""');
}

/** One line for each way back to where a search came from. */
function findCycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, trail: readonly string[]): void => {
    const start = trail.indexOf(file);
    if (start >= 0) {
      const cycle = [...trail.slice(start), file];
      found.push(`${trail.at(-1)} imports ${file}: a cycle, ${cycle.join(" → ")}`);
      return;
    }
    if (done.has(file)) return;
    for (const target of graph.get(file) ?? []) visit(target, [...trail, file]);
    done.add(file);
  };
  for (const file of [...graph.keys()].sort()) visit(file, []);
  return found;
}
