/** Whatever signature counts here counts for the real Nix, and what its library refuses counts for neither. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { formatNarInfo, type NarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { fingerprint, formatSignature, signNarInfo, verifyNarInfo } from "../../../src/nar/signature.ts";
import {
  formatPublicKey,
  generateSecretKey,
  type PublicKey,
  publicKeyOf,
} from "../../../src/nar/signing-key.ts";
import { Cleanup } from "../../support/lease.ts";
import { describeWith, openNix } from "../../support/needs.ts";
import { shellDerivation, type TestNix } from "../../support/nix.ts";
import { oddSignatures } from "../../support/odd-signatures.ts";
import { openClient } from "../../support/substitute.ts";

const KEY = generateSecretKey("one", new Uint8Array(32).fill(1));
const cleanup = new Cleanup();
afterAll(() => cleanup.run());

describeWith(["nix"], "signatures", () => {
  let nix: TestNix;
  let info: NarInfo;
  /** A binary cache of one path, as files. */
  let [cache, narinfo] = ["", ""];

  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
    const path = await nix.build(shellDerivation("signed", "echo signed > $out"));
    cache = join(nix.folder, "binary-cache");
    await mkdir(cache);
    await nix.run("nix", ["copy", "--to", `file://${cache}`, path]);
    narinfo = join(cache, (await readdir(cache)).find((name) => name.endsWith(".narinfo")) ?? "");
    info = parseNarInfo(await readFile(narinfo, "utf8"));
  });

  /** Whether Nix takes the path with these signatures. */
  const takes = async (sigs: readonly string[], trusted: PublicKey): Promise<boolean> => {
    await writeFile(narinfo, formatNarInfo({ ...info, sigs: [...sigs] }));
    const client = await openClient(nix, formatPublicKey(trusted));
    try {
      await client.copy(`file://${cache}`, [info.storePath]);
      return true;
    } catch (error) {
      expect(String(error)).toMatch(
        /lacks a (valid )?signature|signature is (not valid|corrupt)|invalid character/,
      );
      return false;
    }
  };

  test("of points of small order, odd spellings and keys beside the group: as Nix has it", async () => {
    const message = new TextEncoder().encode(fingerprint(info));
    const found: Record<string, boolean> = {};
    for (const { what, publicKey, signature } of oddSignatures(message)) {
      const trusted = { name: "one", bytes: publicKey };
      const sigs = [formatSignature({ name: "one", bytes: signature })];
      const isGood = verifyNarInfo({ ...info, sigs }, [trusted]);
      found[what] = await takes(sigs, trusted);
      // Of points beside the group libsodium takes more from 1.0.19 on.
      if (isGood || !what.includes("with order")) expect([what, isGood]).toEqual([what, found[what]]);
    }
    expect(found).toMatchObject({ "as it should be": true, "a neutral R": false, "a neutral key": false });
  });

  test("of several signatures, and of what is none: as Nix has it", async () => {
    const good = signNarInfo(info, KEY);
    const wrong = `one:${Buffer.alloc(64).toString("base64")}`;
    const trusted = publicKeyOf(KEY);
    for (const sigs of [
      [],
      [good],
      [wrong, good],
      ["two:none", good],
      [good.replace("one:", "two:")],
      [wrong],
      ["one:AAAA", good],
      [good, "one:!"],
      ["one:", good],
      [good.replace("==", "AAAA")],
      [`${good.slice(0, 20)} ${good.slice(20)}`],
    ])
      expect([sigs, verifyNarInfo({ ...info, sigs }, [trusted])]).toEqual([sigs, await takes(sigs, trusted)]);
  });

  test("of spellings of base64 that Nix takes and nobody writes none counts here", async () => {
    const good = signNarInfo(info, KEY);
    const trusted = publicKeyOf(KEY);
    for (const odd of [good.slice(0, -2), `${good}AAAA`, `${good} `])
      expect([await takes([odd], trusted), verifyNarInfo({ ...info, sigs: [odd] }, [trusted])]).toEqual([
        true,
        false,
      ]);
  });
});
