/** A result as JSON. GitHub Actions reads what is printed, too: texts of strangers must be no commands to it. */
export function resultJson(value: unknown): string {
  return JSON.stringify(value).replaceAll("##[", "\\u0023#[");
}
