/** Keys and signatures against Nix: each side reads, accepts and checks what the other made. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { formatNarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { signNarInfo, verifyNarInfo } from "../../../src/nar/signature.ts";
import {
  formatPublicKey,
  formatSecretKey,
  generateSecretKey,
  parsePublicKey,
  parseSecretKey,
  publicKeyOf,
} from "../../../src/nar/signing-key.ts";
import { describeWithNix, PrivateNix } from "./nix.ts";

describeWithNix("keys and signatures", () => {
  let nix: PrivateNix;
  beforeEach(() => {
    nix = new PrivateNix();
  });
  afterEach(() => nix.remove());

  const newKey = (name: string) => generateSecretKey(name, crypto.getRandomValues(new Uint8Array(32)));

  /** A path with references, one of them itself, that no content address covers. */
  const build = (): string => {
    writeFileSync(
      nix.path("object.nix"),
      `let dep = n: builtins.toFile n n; in derivation {
        name = "object"; system = builtins.currentSystem; builder = "/bin/sh";
        args = [ "-c" "echo $out \${dep "one"} \${dep "two"} \${dep "three"} > $out" ];
      }`,
    );
    return nix.run(["nix-build", nix.path("object.nix"), "--no-out-link"]);
  };

  /** Copies to a binary cache folder and gives the file of the path's narinfo. */
  const copy = (storePath: string): string => {
    nix.run(["nix", "copy", "--to", `file://${nix.path("cache")}`, storePath]);
    return nix.path(`cache/${storePath.slice(nix.storeDir.length + 1, nix.storeDir.length + 33)}.narinfo`);
  };

  test("what Nix generates parses, and formats back to the same bytes", () => {
    const [secretFile, publicFile] = [nix.path("secret"), nix.path("public")];
    nix.run(["nix-store", "--generate-binary-cache-key", "cache.example.org-1", secretFile, publicFile]);
    const secret = parseSecretKey(readFileSync(secretFile, "utf8"));
    expect(formatSecretKey(secret)).toBe(readFileSync(secretFile, "utf8"));
    expect(formatPublicKey(publicKeyOf(secret))).toBe(readFileSync(publicFile, "utf8"));
    expect(parsePublicKey(readFileSync(publicFile, "utf8")).name).toBe("cache.example.org-1");

    const printed = nix.run(["nix", "key", "generate-secret", "--key-name", "other-1"]);
    expect(formatSecretKey(parseSecretKey(printed))).toBe(printed);
  });

  test("what we generate, Nix converts to the same public key", () => {
    for (const end of ["", "\n"]) {
      const key = newKey("ours-1");
      const converted = nix.run(["nix", "key", "convert-secret-to-public"], formatSecretKey(key) + end);
      expect(converted).toBe(formatPublicKey(publicKeyOf(key)));
    }
  });

  test("Nix signs with our key as we sign, and we find it good", () => {
    const key = newKey("ours-1");
    const storePath = build();
    writeFileSync(nix.path("key"), formatSecretKey(key));
    nix.run(["nix", "store", "sign", "-k", nix.path("key"), storePath]);
    const info = parseNarInfo(readFileSync(copy(storePath), "utf8"), "narinfo", nix.storeDir);
    expect(info.references.length).toBe(4);
    expect(info.references).toContain(storePath.slice(nix.storeDir.length + 1));
    expect(info.ca).toBeUndefined();
    expect(info.sigs).toEqual([signNarInfo(info, key, nix.storeDir)]);
    expect(verifyNarInfo(info, [publicKeyOf(key)], nix.storeDir)).toBe(true);
    expect(verifyNarInfo(info, [publicKeyOf(newKey("ours-1"))], nix.storeDir)).toBe(false);
  });

  test("what we sign, `nix store verify` accepts; for another key it does not", () => {
    const key = newKey("ours-1");
    const storePath = build();
    const file = copy(storePath);
    const info = parseNarInfo(readFileSync(file, "utf8"), "narinfo", nix.storeDir);
    expect(info.sigs).toEqual([]);
    info.sigs.push(signNarInfo(info, key, nix.storeDir));
    writeFileSync(file, formatNarInfo(info));

    const verify = (publicKey: string) =>
      nix.try([
        ...["nix", "store", "verify", "--store", `file://${nix.path("cache")}`],
        ...["--option", "trusted-public-keys", publicKey, storePath],
      ]);
    const good = verify(formatPublicKey(publicKeyOf(key)));
    expect(`${good.exitCode} ${good.stderr}`).toStartWith("0 ");
    expect(good.stderr).not.toContain("untrusted");
    const bad = verify(formatPublicKey(publicKeyOf(newKey("ours-1"))));
    expect(bad.exitCode).not.toBe(0);
    expect(bad.stderr).toContain("untrusted");
  });
});
