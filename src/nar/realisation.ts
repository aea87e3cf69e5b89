/**
 * A realisation: which store path an output of a content-addressed derivation came to. Binary caches have each
 * as a file `realisations/<id>.doi`, JSON on one line with its keys in ascending order.
 * https://nix.dev/manual/nix/2.33/protocols/json/build-trace-entry
 *
 *     {"dependentRealisations":{"<id>":"<base name>"},"id":"sha256:<base16>!out","outPath":"<base name>","signatures":[]}
 *
 * Odd: Nix from 2.35 on asks for `build-trace-v2/<derivation>/<output>.doi` instead, by the path of the resolved
 * derivation, which cannot be told from the hash in `id`.
 */
import { ascending } from "./narinfo.ts";
import { formatSignature } from "./signature.ts";
import type { SecretKey } from "./signing-key.ts";

export interface Realisation {
  /** `sha256:<base16>!<output>`: the derivation's hash with its inputs replaced by what they are, and the output. */
  readonly id: string;
  /** Base name of the store path. */
  readonly outPath: string;
  readonly signatures: readonly string[];
  /** Base names by id: the realisations of what the path refers to. */
  readonly dependentRealisations: Readonly<Record<string, string>>;
}

/** Where a binary cache has it. */
export function realisationPath({ id }: Pick<Realisation, "id">): string {
  return `realisations/${id}.doi`;
}

/** As Nix 2.8 writes it into a binary cache. */
export function formatRealisation(realisation: Realisation): string {
  const signatures = ascending(realisation.signatures);
  return JSON.stringify({ ...signedFields(realisation), signatures });
}

/** With the signature that `key` gives: over the JSON without signatures. */
export function signRealisation(realisation: Realisation, key: SecretKey): Realisation {
  const message = new TextEncoder().encode(JSON.stringify(signedFields(realisation)));
  const signature = formatSignature({ name: key.name, bytes: key.sign(message) });
  return { ...realisation, signatures: [...realisation.signatures, signature] };
}

/**
 * The text of a realisation where `known` is in the cache already: what that says stays, with the signatures of
 * both where they say the same. Otherwise two publishers would replace each other's for ever.
 */
export function mergeRealisation(realisation: Realisation, known: string | undefined): string {
  const { signatures, ...fields } = parse(known) ?? {};
  if (known === undefined || fields.outPath !== realisation.outPath) return formatRealisation(realisation);
  if (JSON.stringify(fields) !== JSON.stringify(signedFields(realisation)) || !isTexts(signatures))
    return known;
  return formatRealisation({ ...realisation, signatures: [...realisation.signatures, ...signatures] });
}

function parse(text: string | undefined): Record<string, unknown> | undefined {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

/** Keys ascending: what is signed is this very text. */
function signedFields({ dependentRealisations, id, outPath }: Realisation) {
  const ids = ascending(Object.keys(dependentRealisations));
  return {
    dependentRealisations: Object.fromEntries(ids.map((key) => [key, dependentRealisations[key]])),
    id,
    outPath,
  };
}
