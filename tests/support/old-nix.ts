/** A stand-in for Nix 2.3.7, which cannot unpack zstd and knows none of our options: it says what the real one says. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** Recorded from Debian 11's nix-bin; its last line is the same for both. */
const SCRIPT = `#!/bin/sh
case "$1" in
  --version) echo 'nix (Nix) 2.3.7'; exit 0 ;;
  --extra-experimental-features) echo "error: unrecognised flag '--extra-experimental-features'" >&2 ;;
  *) echo "error: unknown flag '--log-format'" >&2 ;;
esac
echo "Try '$0 --help' for more information." >&2
exit 1
`;

/** Writes its commands into a new folder. @returns the folder, for PATH */
export async function oldNix(folder: string): Promise<string> {
  const bin = join(folder, "nix-2.3.7");
  await mkdir(bin);
  for (const name of ["nix", "nix-store"]) await writeFile(join(bin, name), SCRIPT, { mode: 0o755 });
  return bin;
}
