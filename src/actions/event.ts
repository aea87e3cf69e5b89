/**
 * What set off a run of GitHub Actions, as far as the rights of its token depend on that.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows#workflows-in-forked-repositories
 */
import { readFileSync } from "node:fs";

export interface RunEvent {
  /** Such as `pull_request`. */
  readonly name: string;
  /** The file that holds the event, as JSON. */
  readonly file: string;
  /** `OWNER/REPO` that the run belongs to. */
  readonly repository: string;
  /** Who set it off. */
  readonly actor: string;
}

/** No event is longer: GitHub sends 25 MB at most. */
const MAX_EVENT_BYTES = 32 * 1024 * 1024;

/**
 * Why the token of this run may only read, as the subject of a sentence; undefined where it may write, or where that is
 * not known.
 */
export function readOnlyRun(event: RunEvent): string | undefined {
  if (event.actor === "dependabot[bot]") return "a run that Dependabot has set off";
  // A run for pull_request_target has the rights of the repository.
  if (!event.name.startsWith("pull_request") || event.name === "pull_request_target") return undefined;
  const { pull_request: request, repository } = readEvent(event.file);
  if (!isRecord(request) || !isRecord(request.head)) return undefined;
  const name = (value: unknown) =>
    isRecord(value) && typeof value.full_name === "string" ? value.full_name : "";
  const own = name(repository) || event.repository;
  // Null once the fork was deleted.
  const head = name(request.head.repo);
  return head.toLowerCase() === own.toLowerCase() ? undefined : "a pull request from a fork";
}

/** An event that cannot be read is one of which nothing is known. */
function readEvent(file: string): Record<string, unknown> {
  try {
    const text = readFileSync(file, "utf8");
    const event: unknown = text.length > MAX_EVENT_BYTES ? undefined : JSON.parse(text);
    return isRecord(event) ? event : {};
  } catch {
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
