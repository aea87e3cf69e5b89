/** What each exit code means, for the manual. */
import { type ErrorCode, EXIT_CODES } from "../errors.ts";

const MEANINGS: Readonly<Record<ErrorCode, string>> = {
  internal: "A defect in nixcache",
  usage: "Wrong usage",
  "nix-store": "The local Nix store, or Nix itself",
  key: "A signing key, or the lack of one",
  reference: "No cache reference",
  listen: "Cannot listen there",
  filesystem: "A file or folder cannot be read or written",
  unreachable: "The registry cannot be reached",
  denied: "The registry refuses the credentials",
  layout: "A layout folder holds something else",
  corrupt: "Damaged data",
  incomplete: "Published or copied, but something had to be left out",
  protocol: "The registry does what the protocol does not allow",
  damaged: "verify found damage",
  build: "Published, but some outputs could not be built",
  unwell: "doctor found something wrong, or use that Nix will not use the cache",
  absent: "A path (why, pin), a pin or a generation is not in the cache",
  unreadable: "Published, but the registry does not give it back as it was written",
  clock: "This machine's clock and the registry's are too far apart to end or delete anything",
  interrupted: "Interrupted",
};

export function exitStatuses(): { readonly code: number; readonly meaning: string }[] {
  const failures = Object.entries(MEANINGS).map(([name, meaning]) => {
    return { code: EXIT_CODES[name as ErrorCode], meaning };
  });
  return [{ code: 0, meaning: "Done" }, ...failures];
}
