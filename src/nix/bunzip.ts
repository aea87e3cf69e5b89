/** bzip2, in which Nix keeps build logs. Neither Bun nor Node has it; some 20 MB/s here. */
import Bunzip from "seek-bzip";

class Input extends Bunzip.Stream {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    super();
    this.#bytes = bytes;
  }

  override readByte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new Error("it is cut short");
    return byte;
  }

  override eof(): boolean {
    return this.#at >= this.#bytes.length;
  }
}

class Output extends Bunzip.Stream {
  readonly #maxBytes: number;
  #bytes = new Uint8Array(64 * 1024);
  #size = 0;

  constructor(maxBytes: number) {
    super();
    this.#maxBytes = maxBytes;
  }

  override writeByte(byte: number): void {
    if (this.#size === this.#maxBytes) throw new TooLong();
    if (this.#size === this.#bytes.length) {
      const larger = new Uint8Array(this.#size * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes[this.#size++] = byte;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }
}

class TooLong extends Error {}

/** `9`, for blocks of 900,000 bytes, and `1`. */
const USUAL_LEVEL = 0x39;
const LOWEST_LEVEL = 0x31;

/** Bytes. What is packed into less nearly always has under 100,000. */
const SHORT_BYTES = 16 * 1024;

/**
 * The content of one or more bzip2 streams; undefined when it has more than `maxBytes`.
 * @throws for anything that is no bzip2, or is damaged.
 */
export function bunzip(compressed: Uint8Array, maxBytes: number): Uint8Array | undefined {
  const isUsual = compressed[3] === USUAL_LEVEL;
  if (compressed.length > SHORT_BYTES || !isUsual) return unpack(compressed, maxBytes);
  // The fourth byte says how large blocks may be, and the library takes 3.6 MB of memory for the usual 900,000
  // bytes, ten times the work of a short log. So blocks of 100,000 are tried first.
  const short = Uint8Array.from(compressed);
  short[3] = LOWEST_LEVEL;
  try {
    return unpack(short, maxBytes);
  } catch {
    return unpack(compressed, maxBytes);
  }
}

function unpack(compressed: Uint8Array, maxBytes: number): Uint8Array | undefined {
  const output = new Output(maxBytes);
  try {
    Bunzip.decode(new Input(compressed), output, true);
  } catch (error) {
    if (error instanceof TooLong) return undefined;
    throw error;
  }
  return output.bytes;
}
