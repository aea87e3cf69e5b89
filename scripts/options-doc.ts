/**
 * Writes `docs/options.md` from the options that the modules declare: `bun run docs:options`. Nix evaluates them, with
 * the tests' double of nixpkgs' lib, so that no network is needed.
 */
import { join } from "node:path";
import { outputOf, ROOT, runScript } from "./process.ts";

export const OPTIONS_DOC = join(ROOT, "docs", "options.md");

/** What `nix/options-doc.nix` tells of an option. */
interface Option {
  readonly name: string;
  readonly type: string;
  readonly description: string;
  readonly default: Shown;
  readonly example?: Shown;
  /** Names of the module systems that have it. */
  readonly modules: readonly string[];
}

/** A text that is Nix already, or a value. */
type Shown = { readonly text: string } | { readonly value: Value };
type Value = null | boolean | number | string | readonly Value[];

const HEAD = `# Options of the modules

Made by \`bun run docs:options\` from \`nix/modules/options.nix\`.

The flake has \`nixosModules.default\`, \`darwinModules.default\` and \`homeModules.default\`; without flakes they are in
\`default.nix\`. Each runs \`nixcache serve\` as a service and tells Nix of it:

\`\`\`nix
services.nixcache-proxy = {
  enable = true;
  repo = "OWNER/REPO";
  publicKey = "my-cache-1:…"; # the line in public-key.txt
};
\`\`\`

| | NixOS | nix-darwin | home-manager |
|---|---|---|---|
| runs as | a hardened unit of systemd, under a user of its own | a daemon of launchd, as \`_nixcache-proxy\` | a unit or an agent of the user |
| Nix learns of it by | \`/etc/nix/nix.conf\` | \`/etc/nix/nix.conf\`, where \`nix.enable\` is set | the user's \`nix.conf\`, which counts for trusted users |
| secret files | root alone may read them | \`_nixcache-proxy\` must be able to read them | the user must be able to read them |
| logs | \`journalctl -u nixcache-proxy\` | \`/var/lib/nixcache-proxy/nixcache-proxy.log\` | \`journalctl --user -u nixcache-proxy\`, \`~/Library/Logs/nixcache-proxy.log\` |

What cannot work is refused when the configuration is evaluated, with a sentence that says what to write instead.
`;

/** @throws when Nix cannot evaluate the options, or is not there. */
export async function optionsDoc(): Promise<string> {
  const lib = join(ROOT, "tests", "support", "nixpkgs", "lib.nix");
  const expression = `import ${join(ROOT, "nix", "options-doc.nix")} { lib = import ${lib}; }`;
  const json = await outputOf(["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]);
  if (json === undefined)
    throw new Error("the options cannot be evaluated: nix-instantiate failed, or is missing");
  const options = JSON.parse(json) as readonly Option[];
  return [HEAD, ...options.map(section)].join("\n");
}

function section({ name, type, description, modules, ...shown }: Option): string {
  const example = shown.example === undefined ? [] : [`Example: \`${written(shown.example)}\``];
  const facts = [`Type: ${type}`, `Default: \`${written(shown.default)}\``, ...example];
  const where = modules.length === 3 ? [] : [`Only for ${modules.join(" and ")}.`];
  return `## \`services.nixcache-proxy.${name}\`

${[description.trim(), ...where].join(" ")}

${facts.map((fact) => `- ${fact}`).join("\n")}
`;
}

function written(shown: Shown): string {
  return "text" in shown ? shown.text : nix(shown.value);
}

/** As one writes it in Nix. */
function nix(value: Value): string {
  if (Array.isArray(value)) return value.length === 0 ? "[ ]" : `[ ${value.map(nix).join(" ")} ]`;
  // JSON's escapes are Nix's too, but for the dollar.
  return typeof value === "string" ? JSON.stringify(value).replaceAll("${", "\\${") : String(value);
}

if (import.meta.main) {
  await runScript(async () => {
    await Bun.write(OPTIONS_DOC, await optionsDoc());
  });
}
