/** Taking in a NAR. Its name is its hash, so that no name can come to mean other bytes. */
import { preview } from "../errors.ts";
import { decodeBase32, encodeBase32 } from "../nar/base32.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import { lengthOf, receiveFile, type Upload } from "./body.ts";
import type { Intake } from "./intake.ts";
import { Refusal } from "./refusal.ts";

/** @throws Refusal */
export async function takeNar(file: string, upload: Upload, intake: Intake): Promise<boolean> {
  const { journal } = intake;
  const expected = digestOfName(file);
  const length = lengthOf(upload, Number.MAX_SAFE_INTEGER);
  await intake.within(length, async () => {
    const received = await receiveFile(upload, journal.draft(), length);
    if (received.digest !== expected) {
      await Bun.file(received.file).delete();
      const found = hashOf(received.digest);
      throw new Refusal(400, `the bytes of nar/${file} have the hash ${found}, expected that of the name`);
    }
    await journal.addFile({ path: `nar/${file}`, kind: "nar", nar: file }, received);
  });
  return true;
}

/** As narinfos have it. */
export function hashOf(digest: Digest): string {
  return `sha256:${encodeBase32(Buffer.from(digestHex(digest), "hex"))}`;
}

/** The digest that a NAR file's name promises. @throws Refusal */
export function digestOfName(file: string): Digest {
  const [, hash] = /^([0-9a-z]{52})\.nar(?:\.[a-z0-9]{1,8})?$/.exec(file) ?? [];
  try {
    if (hash !== undefined) return `sha256:${Buffer.from(decodeBase32(hash)).toString("hex")}`;
  } catch {
    // Refused like any other name.
  }
  throw new Refusal(
    400,
    `got the NAR file ${preview(file)}, expected <its SHA-256 in base32>.nar.<compression>`,
  );
}
