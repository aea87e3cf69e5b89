/**
 * What an executable file says of itself: for which system and machine it is, and whether its signature is right.
 * https://man7.org/linux/man-pages/man5/elf.5.html, and mach-o/loader.h and cs_blobs.h of Apple's xnu.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

export interface Executable {
  readonly format: "ELF" | "Mach-O";
  readonly machine: "x86_64" | "arm64";
  /** The dynamic linker that it asks for, of ELF. */
  readonly interpreter?: string;
  /** Of Mach-O: whether the hashes in its signature are those of its pages; undefined where it has none. */
  readonly signed?: boolean | undefined;
}

const ELF_MACHINES: Readonly<Record<number, Executable["machine"]>> = { 62: "x86_64", 183: "arm64" };
const MACH_MACHINES: Readonly<Record<number, Executable["machine"]>> = {
  16777223: "x86_64",
  16777228: "arm64",
};

export function readExecutable(file: string): Executable {
  const bytes = readFileSync(file);
  if (bytes.readUInt32BE(0) === 0x7f454c46) return readElf(bytes);
  if (bytes.readUInt32LE(0) === 0xfeedfacf) return readMach(bytes);
  throw new Error(`${file} is neither ELF nor Mach-O of 64 bits`);
}

function machineIn(of: Readonly<Record<number, Executable["machine"]>>, code: number): Executable["machine"] {
  const machine = of[code];
  if (machine === undefined) throw new Error(`the machine ${code} is not known`);
  return machine;
}

function readElf(bytes: Buffer): Executable {
  const [is64Bit, isLittle, type] = [bytes[4] === 2, bytes[5] === 1, bytes.readUInt16LE(16)];
  // 2 is an executable, 3 one that may be loaded anywhere.
  if (!is64Bit || !isLittle || (type !== 2 && type !== 3)) throw new Error("no 64-bit executable");
  const machine = machineIn(ELF_MACHINES, bytes.readUInt16LE(18));
  const [start, size, count] = [
    Number(bytes.readBigUInt64LE(32)),
    bytes.readUInt16LE(54),
    bytes.readUInt16LE(56),
  ];
  for (let at = start; at < start + size * count; at += size) {
    if (bytes.readUInt32LE(at) !== 3) continue;
    const [offset, length] = [at + 8, at + 32].map((field) => Number(bytes.readBigUInt64LE(field)));
    const interpreter = bytes.toString("latin1", offset, (offset ?? 0) + (length ?? 0) - 1);
    return { format: "ELF", machine, interpreter };
  }
  return { format: "ELF", machine };
}

function readMach(bytes: Buffer): Executable {
  const machine = machineIn(MACH_MACHINES, bytes.readUInt32LE(4));
  if (bytes.readUInt32LE(12) !== 2) throw new Error("no executable");
  let at = 32;
  for (let left = bytes.readUInt32LE(16); left > 0; left--) {
    // LC_CODE_SIGNATURE
    if (bytes.readUInt32LE(at) === 0x1d) {
      return { format: "Mach-O", machine, signed: isSigned(bytes, bytes.readUInt32LE(at + 8)) };
    }
    at += bytes.readUInt32LE(at + 4);
  }
  return { format: "Mach-O", machine, signed: undefined };
}

/** Whether every page has the hash that the code directory says; all numbers in it are big-endian. */
function isSigned(bytes: Buffer, start: number): boolean {
  if (bytes.readUInt32BE(start) !== 0xfade0cc0) return false;
  for (let index = 0; index < bytes.readUInt32BE(start + 8); index++) {
    const blob = start + bytes.readUInt32BE(start + 12 + index * 8 + 4);
    if (bytes.readUInt32BE(blob) !== 0xfade0c02) continue;
    const [hashes, slots, limit] = [16, 28, 32].map((field) => bytes.readUInt32BE(blob + field)) as [
      number,
      number,
      number,
    ];
    const [size, type, page] = [bytes[blob + 36] ?? 0, bytes[blob + 37], 2 ** (bytes[blob + 39] ?? 0)];
    // 2 is SHA-256.
    if (type !== 2 || size !== 32 || slots !== Math.ceil(limit / page)) return false;
    for (let slot = 0; slot < slots; slot++) {
      const content = bytes.subarray(slot * page, Math.min(limit, (slot + 1) * page));
      const expected = bytes.subarray(blob + hashes + slot * size, blob + hashes + (slot + 1) * size);
      if (!createHash("sha256").update(content).digest().equals(expected)) return false;
    }
    return true;
  }
  return false;
}
