/** Parties that sign, and parties that take only what is signed. */
import { generateSecretKey, publicKeyOf, type SecretKey } from "../../src/nar/signing-key.ts";
import type { Store } from "../../src/oci/store.ts";
import type { Trust } from "../../src/protocol/signed.ts";
import { party, type TestParty } from "./protocol.ts";

export function testKey(name: string): SecretKey {
  const seed = new Bun.CryptoHasher("sha256").update(name).digest();
  return generateSecretKey(name, new Uint8Array(seed));
}

/** Signs, and takes what the same key has signed, as a publisher does. */
export function signing(store: Store, key: SecretKey, ...more: SecretKey[]): TestParty {
  return trusting(store, { keys: [key, ...more].map(publicKeyOf), signer: key });
}

/** Takes what one of the keys has signed, and signs nothing. */
export function reading(store: Store, ...keys: SecretKey[]): TestParty {
  return trusting(store, { keys: keys.map(publicKeyOf) });
}

export function trusting(store: Store, trust: Trust): TestParty {
  return { ...party(store, undefined, trust.keys), trust };
}
