/**
 * Takes the signature out of an executable for Intel Macs. Bun 1.4.5 leaves that of its own executable in, which no
 * longer fits what is in the file, and macOS ends a program with a wrong signature (oven-sh/bun#39837). Without one
 * it runs: only Apple's own processors insist, and for those Bun signs anew.
 * https://github.com/apple-oss-distributions/xnu/blob/main/EXTERNAL_HEADERS/mach-o/loader.h
 */

const MAGIC_64 = 0xfeedfacf;
const CPU_X86_64 = 0x01000007;
const LC_SEGMENT_64 = 0x19;
const LC_CODE_SIGNATURE = 0x1d;

/** Bytes of the header of a 64-bit file. */
const HEADER = 32;
const PAGE = 4096n;

/** Anything but an executable for Intel Macs that has a signature is left as it is. @throws for an odd one */
export function withoutSignature(executable: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(executable.buffer, executable.byteOffset, executable.byteLength);
  if (view.getUint32(0, true) !== MAGIC_64 || view.getUint32(4, true) !== CPU_X86_64) return executable;
  const [count, size] = [view.getUint32(16, true), view.getUint32(20, true)];
  let linkEdit: number | undefined;
  let at = HEADER;
  for (let index = 0; index < count; index++) {
    const [command, length] = [view.getUint32(at, true), view.getUint32(at + 4, true)];
    const name = Buffer.from(executable.subarray(at + 8, at + 24)).toString("latin1");
    if (command === LC_SEGMENT_64 && name.startsWith("__LINKEDIT\0")) linkEdit = at;
    if (command === LC_CODE_SIGNATURE) {
      const start = view.getUint32(at + 8, true);
      const isLast = index === count - 1 && start + view.getUint32(at + 12, true) === executable.length;
      if (!isLast || linkEdit === undefined)
        throw new Error("the signature is not the last part of the file");
      view.setUint32(16, count - 1, true);
      view.setUint32(20, size - length, true);
      executable.fill(0, at, at + length);
      shorten(view, linkEdit, BigInt(start));
      return executable.slice(0, start);
    }
    at += length;
  }
  return executable;
}

/** The segment that the signature was at the end of. */
function shorten(view: DataView, segment: number, end: bigint): void {
  const size = end - view.getBigUint64(segment + 40, true);
  view.setBigUint64(segment + 48, size, true);
  view.setBigUint64(segment + 32, ((size + PAGE - 1n) / PAGE) * PAGE, true);
}
