/** A file that an entry keeps as zstd beside its NAR: its listing, its build log. */
import type { Part } from "../cache/part.ts";
import { messageOf, NixcacheError } from "../errors.ts";
import { decompress } from "../zstd.ts";
import type { BlobReader, ReadOptions } from "./blob-range.ts";
import { readNarFile } from "./nar-file.ts";

/** Bytes of a file, unpacked. What we publish is a quarter of it; a few KiB of zstd can unpack to many GiB. */
const MAX_FILE_BYTES = 64 * 1024 * 1024;

/**
 * The content, in chunks, unpacked.
 * @throws `corrupt` for anything that is no zstd or too much; and when the blob cannot be read
 */
export async function* readPackedFile(
  part: Part,
  store: BlobReader,
  options: ReadOptions = {},
): AsyncGenerator<Uint8Array, void, undefined> {
  const where = `${part.length} bytes at ${part.offset} of blob ${part.blob} of ${store.name}`;
  const packed = readNarFile({ parts: [part], fileHash: undefined }, store, options);
  let size = 0;
  try {
    for await (const chunk of decompress(new Response(packed).body as ReadableStream<Uint8Array>)) {
      size += chunk.length;
      if (size > MAX_FILE_BYTES) {
        throw new NixcacheError("corrupt", `${where}: it unpacks to more than ${MAX_FILE_BYTES} bytes`);
      }
      yield chunk;
    }
  } catch (error) {
    if (error instanceof NixcacheError) throw error;
    throw new NixcacheError("corrupt", `${where}: not valid zstd: ${messageOf(error)}`, { cause: error });
  }
}
