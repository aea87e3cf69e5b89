/** What a person names that is to be built, and what `nix build --json` says that it has built. */
import { NixcacheError, preview } from "../errors.ts";

export interface Installable {
  /** A flake reference, such as `nixpkgs` or `path:/etc/nixos`. */
  readonly flake: string;
  /** An attribute path below it, or one of its outputs. */
  readonly attribute: string;
}

/**
 * `FLAKE#ATTRIBUTE` or a flake reference with a scheme, such as `github:OWNER/REPO`, as `nix build` takes it;
 * undefined for what can only be a path.
 */
export function parseInstallable(text: string): Installable | undefined {
  const mark = text.indexOf("#");
  if (mark < 0) return /^[a-z][a-z0-9+.-]*:/.test(text) ? { flake: text, attribute: "default" } : undefined;
  return { flake: text.slice(0, mark) || ".", attribute: text.slice(mark + 1) || "default" };
}

/**
 * The names on standard input: lines, or the store paths in the output of `nix build --json`, which has several
 * shapes: `{drvPath, outputs: {NAME: PATH}}`, and for what is no derivation `{path}` or just a path.
 *
 * @throws `usage` when it begins as JSON and is none of that.
 */
export function readNames(text: string): string[] {
  if (!text.trimStart().startsWith("[")) {
    return text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "");
  }
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (cause) {
    throw notBuildJson(text, cause);
  }
  if (!Array.isArray(list)) throw notBuildJson(text);
  return list.flatMap((item: unknown) => {
    if (typeof item === "string") return [item];
    const { path, outputs } = (item ?? {}) as Record<string, unknown>;
    const paths = typeof path === "string" ? [path] : Object.values(outputs ?? {});
    if (paths.length === 0 || !paths.every((found) => typeof found === "string")) throw notBuildJson(item);
    return paths as string[];
  });
}

function notBuildJson(found: unknown, cause?: unknown): NixcacheError {
  return new NixcacheError(
    "usage",
    `standard input: got ${preview(found)}, expected the output of \`nix build --json\`, or a path a line`,
    { cause },
  );
}
