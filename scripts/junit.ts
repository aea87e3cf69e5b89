/**
 * Reads the JUnit report of `bun test`. Its own closing lines are for people; the report has every test.
 *
 * Only what Bun 1.4 writes is understood: `<testcase …/>` or `<testcase …>` with `<failure` or `<skipped`
 * inside, and `>` escaped in attributes.
 */
export interface TestCounts {
  passed: number;
  failed: number;
  /** `file: name` of each skipped or unfinished ("todo") test. */
  skipped: string[];
}

export function countTests(xml: string): TestCounts {
  const counts: TestCounts = { passed: 0, failed: 0, skipped: [] };
  for (const match of xml.matchAll(/<testcase\s([^>]*?)(\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const [, attributes = "", , body = ""] = match;
    if (/<(failure|error)\b/.test(body)) counts.failed += 1;
    else if (/<skipped\b/.test(body)) counts.skipped.push(nameOf(attributes));
    else counts.passed += 1;
  }
  return counts;
}

function nameOf(attributes: string): string {
  const value = (name: string) => new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(attributes)?.[1] ?? "";
  return unescapeXml([value("file"), value("classname"), value("name")].filter(Boolean).join(": "));
}

function unescapeXml(text: string): string {
  const characters: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name: string) => characters[name] ?? "");
}

/** The files that have at least one test in the report, relative to the project. */
export function reportedFiles(xml: string): Set<string> {
  const files = new Set<string>();
  for (const [, attributes = ""] of xml.matchAll(/<testcase\s([^>]*?)\/?>/g)) {
    const file = /(?:^|\s)file="([^"]*)"/.exec(attributes)?.[1];
    if (file !== undefined) files.add(unescapeXml(file));
  }
  return files;
}
