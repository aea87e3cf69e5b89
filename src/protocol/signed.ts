/**
 * Signatures of generations and of root layers, with the keys that sign store paths (docs/format.md, "Signatures").
 *
 * Whoever may write to a registry may put any generation there. A reader that was given keys takes those alone that one
 * of them has signed, and root layers that one of them has signed; everybody else's change nothing for it.
 *
 * A signature stands as an annotation of a layer's descriptor. It covers a line of text that begins with what is signed,
 * so it is good for nothing else: neither for a store path nor, as it has the name of the generation, under another tag.
 */
import type { SignedReference } from "../cache/manifests.ts";
import type { GenerationName } from "../cache/tags.ts";
import { isGoodSignature } from "../nar/ed25519.ts";
import { formatSignature, isSignature, parseSignature } from "../nar/signature.ts";
import type { PublicKey, SecretKey } from "../nar/signing-key.ts";
import type { Digest } from "../oci/digest.ts";

/** Signatures that are tried for one layer: strangers may write as many as they like. */
const MAX_SIGNATURES = 16;

/** What is signed of a generation: its name, and the index layer with its record and its lines. */
export function generationMessage(name: GenerationName, index: Digest): string {
  return `nixcache-generation-v1\n${name}\n${index}\n`;
}

/** What is signed of a root layer. */
export function rootLayerMessage(layer: Digest): string {
  return `nixcache-root-layer-v1\n${layer}\n`;
}

/** The value of the annotation. */
export function signText(message: string, key: SecretKey): string {
  return formatSignature({ name: key.name, bytes: key.sign(Buffer.from(message)) });
}

/** Whether one of the keys has signed. Of keys with the same name each is tried. */
export function isSignedBy(
  signatures: string | undefined,
  message: string,
  keys: readonly PublicKey[],
): boolean {
  const texts = (signatures ?? "").split(" ").filter((text) => text !== "");
  const bytes = Buffer.from(message);
  return texts.slice(0, MAX_SIGNATURES).some((text) => {
    if (!isSignature(text)) return false;
    const signature = parseSignature(text);
    return keys.some(
      (key) => key.name === signature.name && isGoodSignature(signature.bytes, bytes, key.bytes),
    );
  });
}

/** Who must have signed what a reader takes, and who signs what is written. */
export interface Trust {
  /** Of these one must have signed; undefined where everything counts, as nobody gave a key. */
  readonly keys?: readonly PublicKey[] | undefined;
  /** Signs generations, and root layers where `keys` are given: others may hold what anybody has written. */
  readonly signer?: SecretKey | undefined;
}

/** Whether a generation counts for this reader. */
export function countsGeneration({ keys }: Trust, name: GenerationName, index: SignedReference): boolean {
  return keys === undefined || isSignedBy(index.signatures, generationMessage(name, index.digest), keys);
}

/** Whether a root layer counts for this reader. */
export function countsRootLayer({ keys }: Trust, layer: SignedReference): boolean {
  return keys === undefined || isSignedBy(layer.signatures, rootLayerMessage(layer.digest), keys);
}

/** Of a generation about to be committed; undefined where nobody signs. */
export function generationSignature(
  { signer }: Trust,
  name: GenerationName,
  index: Digest,
): string | undefined {
  return signer && signText(generationMessage(name, index), signer);
}

/** Of a root layer about to be written; undefined where it may hold what nobody vouches for. */
export function rootLayerSignature({ keys, signer }: Trust, layer: Digest): string | undefined {
  return keys === undefined || signer === undefined ? undefined : signText(rootLayerMessage(layer), signer);
}
