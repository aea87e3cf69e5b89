/**
 * What a step says to GitHub Actions in its log: annotations, groups.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
 *
 * The runner looks for commands in every line of standard output and error: `::name …::` at the beginning, and an
 * older form, `##[name …]`, anywhere in it. So whatever quotes strangers is either the message of a command of ours,
 * or stands where commands are stopped.
 */

export type Level = "error" | "warning" | "notice";

/** One line, without its newline. @param title stands in bold above the message */
export function annotation(level: Level, message: string, title: string): string {
  return `::${level} title=${escapeProperty(title)}::${escapeData(message)}`;
}

export function groupStart(title: string): string {
  return `::group::${escapeData(title)}`;
}

export const GROUP_END = "::endgroup::";

/** No line means anything until `resume`. @param token that nobody can guess who writes in between */
export function stop(token: string): string {
  return `::stop-commands::${token}`;
}

export function resume(token: string): string {
  return `::${token}::`;
}

function escapeData(text: string): string {
  return text.replaceAll("%", "%25").replaceAll("\r", "%0D").replaceAll("\n", "%0A");
}

function escapeProperty(text: string): string {
  return escapeData(text).replaceAll(":", "%3A").replaceAll(",", "%2C");
}
