/** What a person names that is to be built. */
import { NixcacheError, preview } from "../errors.ts";

export interface Installable {
  /** A flake reference, such as `nixpkgs` or `path:/etc/nixos`. */
  readonly flake: string;
  /** An attribute path below it, or one of its outputs; maybe with outputs of the derivation behind a `^`. */
  readonly attribute: string;
}

/**
 * `FLAKE#ATTRIBUTE` or a flake reference with a scheme, such as `github:OWNER/REPO`, as `nix build` takes it;
 * undefined for what can only be a path. Behind either there may be `^OUTPUTS`.
 */
export function parseInstallable(text: string): Installable | undefined {
  const mark = text.indexOf("#");
  if (mark >= 0) {
    const { attribute, outputs } = cutOutputs(text.slice(mark + 1));
    return { flake: text.slice(0, mark) || ".", attribute: (attribute || "default") + outputs };
  }
  if (!/^[a-z][a-z0-9+.-]*:/.test(text)) return undefined;
  const { attribute: flake, outputs } = cutOutputs(text);
  return { flake, attribute: `default${outputs}` };
}

export interface DerivationName {
  /** A store path, or a link to one. */
  readonly path: string;
  /** All when undefined. */
  readonly outputs?: readonly string[];
}

/**
 * The outputs of a derivation that is in the store: `PATH.drv^OUTPUTS`, or with `!` as nix-instantiate prints it;
 * undefined for anything else. @throws `usage` when what stands behind is no list of outputs
 */
export function parseDerivation(text: string): DerivationName | undefined {
  const [, path, list] = /^(.*\.drv)[\^!](.*)$/s.exec(text) ?? [];
  if (path === undefined || list === undefined) return undefined;
  const { outputs } = splitOutputs(`${path}^${list}`);
  return { path, ...(outputs && { outputs }) };
}

/**
 * Cuts `^*`, which are all, or `^NAME,NAME` off the end of a text. A `^` in quotes belongs to the text.
 * https://nix.dev/manual/nix/latest/command-ref/new-cli/nix#derivation-output-selection
 *
 * @throws `usage` when what stands behind the `^` is no list of outputs
 */
export function splitOutputs(text: string): { text: string; outputs?: readonly string[] } {
  const { attribute, outputs } = cutOutputs(text);
  if (outputs === "") return { text };
  if (outputs === "^*") return { text: attribute };
  const names = outputs.slice(1).split(",");
  if (names.every((name) => /^[0-9A-Za-z+._?=-]+$/.test(name))) {
    return { text: attribute, outputs: [...new Set(names)] };
  }
  throw new NixcacheError("usage", `got ${preview(outputs)} behind ${preview(attribute)}, expected outputs`, {
    hint: "Write ^* for all outputs, or their names with commas between them, such as ^out,dev.",
  });
}

function cutOutputs(text: string): { attribute: string; outputs: string } {
  const at = text.lastIndexOf("^");
  // Behind the last quote there is none any more.
  const isOutside = at > text.lastIndexOf('"');
  return isOutside && at >= 0
    ? { attribute: text.slice(0, at), outputs: text.slice(at) }
    : { attribute: text, outputs: "" };
}
