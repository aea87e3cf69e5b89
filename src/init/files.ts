/**
 * What makes a repository publish its own cache: the very files by which this one does, so that they cannot rot.
 *
 * They differ in one thing: this repository builds nixcache from its sources, others install the release.
 */
import gcWorkflow from "../../.github/workflows/gc-cache.yml" with { type: "text" };
import publishWorkflow from "../../.github/workflows/publish-cache.yml" with { type: "text" };
import updateWorkflow from "../../.github/workflows/update-and-cache.yml" with { type: "text" };
import flake from "../../config/flake.nix" with { type: "text" };
import { NixcacheError } from "../errors.ts";

export interface Repository {
  /** `OWNER/REPO`. */
  readonly name: string;
  /** The branch that is published when it moves. */
  readonly branch: string;
  /** The action of the release that is to be used, such as `OWNER/nixcache@v1.2.3`. */
  readonly action: string;
}

export interface InitialFile {
  /** Relative to the top of the checkout. */
  readonly path: string;
  readonly text: string;
}

/** How the workflows of this repository come to an executable. */
const BUILD_STEP = /^( +)- name: Build nixcache\n(?:\1 .*\n)+/gm;
const MAIN = /^( +branches: )\[main\]$/m;

export function initialFiles(repository: Repository): InitialFile[] {
  const workflows = {
    "publish-cache.yml": publishWorkflow,
    "update-and-cache.yml": updateWorkflow,
    "gc-cache.yml": gcWorkflow,
  };
  return [
    { path: "config/flake.nix", text: flake },
    ...Object.entries(workflows).map(([name, text]) => {
      return { path: `.github/workflows/${name}`, text: elsewhere(text, repository) };
    }),
  ];
}

/** A workflow of this repository, for another one. */
export function elsewhere(workflow: string, { action, branch }: Repository): string {
  const text = workflow
    .replace(BUILD_STEP, (_, indent: string) =>
      [`${indent}- uses: ${action}`, `${indent}  with:`, `${indent}    publish: "false"`, ""].join("\n"),
    )
    .replace(MAIN, (_, key: string) => `${key}[${JSON.stringify(branch)}]`);
  if (!/npx|bun@/.test(text)) return text;
  throw new NixcacheError(
    "internal",
    "a workflow comes to nixcache in another way than by its step Build nixcache",
  );
}

/** Around the section, so that it is found again. */
const [BEGIN, END] = ["<!-- nixcache: from here -->", "<!-- nixcache: to here -->"];

export function readmeSection({ name, action }: Repository): string {
  const tool = action.replace(/@.*/, "");
  return `${BEGIN}
## Binary cache

What \`config/flake.nix\` lists is built by GitHub Actions and kept as a Nix binary cache in this repository's container
registry, by [nixcache](https://github.com/${tool}). To use it:

\`\`\`sh
nixcache use ${name}              # once: tells Nix of it
nixcache serve --cache ${name}    # answers Nix on this machine
\`\`\`
${END}
`;
}

/**
 * A README with the section: at the end, or where it is already. Undefined where it is there and says something else.
 * @param before undefined where there is no README
 */
export function withSection(
  before: string | undefined,
  repository: Repository,
  force: boolean,
): string | undefined {
  const section = readmeSection(repository);
  if (before === undefined) return `# ${repository.name.split("/")[1]}\n\n${section}`;
  if (before.includes(section)) return before;
  const from = before.indexOf(BEGIN);
  const end = before.indexOf(END, from);
  if (from < 0 || end < 0) return `${before.trimEnd()}${before.trim() === "" ? "" : "\n\n"}${section}`;
  if (!force) return undefined;
  return before.slice(0, from) + section.trimEnd() + before.slice(end + END.length);
}
