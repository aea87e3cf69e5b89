/** A cache with as many paths as a person may have in years; their NARs are slices of one small blob. */
import { type EntryLine, encodeEntry } from "../../src/cache/entry.ts";
import { encodeBase32 } from "../../src/nar/base32.ts";
import { digestOf } from "../../src/oci/digest.ts";
import { foldOrWarn } from "../../src/protocol/fold.ts";
import { GenerationWriter } from "../../src/protocol/generation.ts";
import { openCacheStore } from "./audit.ts";
import { baseName, party, TestHost, testRecord } from "./protocol.ts";

const NAR = new Uint8Array(16).fill(1);

/** One generation; each path refers to some of the few hundred before it. */
export async function fillLargeCache(cache: string, paths: number): Promise<void> {
  using publisher = party(openCacheStore(cache), new TestHost(Date.now()));
  const blob = { digest: digestOf(NAR), size: NAR.length };
  await publisher.store.writeBlob({ ...blob, content: NAR });
  const lines: EntryLine[] = [];
  for (let number = 0; number < paths; number++) lines.push(entry(number, blob));
  const result = await new GenerationWriter(publisher, {}).commit(testRecord(lines, publisher.host), lines, [
    blob,
  ]);
  if (!("committed" in result)) throw new Error("the blob is missing");
  await foldOrWarn(publisher);
}

const nameOf = (number: number) => `package${number % 997}-${Math.floor(number / 997)}.0`;

function entry(
  number: number,
  { digest, size }: { digest: ReturnType<typeof digestOf>; size: number },
): EntryLine {
  const name = nameOf(number);
  const hash = encodeBase32(new Bun.CryptoHasher("sha256").update(name).digest());
  // None leaves its block of 300, so that no closure is larger.
  const place = number % 300;
  const references = Array.from({ length: place === 0 ? 0 : number % 9 }, (_, at) =>
    baseName(nameOf(number - 1 - ((at * 31 + number) % place))),
  );
  return encodeEntry({
    info: {
      ...{ storePath: `/nix/store/${baseName(name)}`, url: `nar/${hash}.nar.zst`, compression: "zstd" },
      ...{ fileHash: `sha256:${hash}`, fileSize: size, narHash: `sha256:${hash}`, narSize: 1000 + number },
      ...{ references: [...new Set(references)].sort(), sigs: [] },
    },
    parts: [{ blob: digest, size, offset: 0, length: size }],
    added: 1_700_000_000 + number,
  });
}
