/**
 * What the pages describe ahead of the code, in one place. A test says what has come and must be taken out; all of it is
 * empty in the end.
 */
export const COMMANDS_AHEAD: readonly string[] = [...["pin", "unpin", "pins", "copy"]];

/** Behind their command. */
export const FLAGS_AHEAD: readonly string[] = [
  ...["gc --roots-from", "pin --keep-days", "pin --keep-revisions", "pin --source", "pin --system"],
];

/** As `docs/troubleshooting.md` quotes them. */
export const MESSAGES_AHEAD: readonly string[] = [
  // pin, unpin, copy
  "… is not in the cache, so there is nothing to hold",
  "Publish it first. What an upstream cache has is not published, and needs no pin.",
  "no publish… has an output …",
  "Outputs with such a name: ….",
  "Name a store path, or an output as `nixcache publish --json` shows it; a link needs a slash, as in ./result.",
  "several sources have an output …: …",
  "Say which one by --source or --system, or name the path.",
  "there is no pin …",
  "There are no pins.",
  "The pins are …….",
  "There is nothing left to copy.",
  "Publish to it or run nixcache gc on it once, which adopts what it has; then copy it.",
  "Check the name of the cache; a folder may not be there yet.",
  "Run nixcache verify --repair on the cache that is copied.",
  "…: its index names blobs that are gone: ……",
  "Run nixcache verify --repair, and publish what it names again.",
];

export const EXIT_CODES_AHEAD: readonly (readonly [code: string, number: number])[] = [];

export const VARIABLES_AHEAD: readonly string[] = [];

export const PAGES_AHEAD: readonly string[] = [];

/** Whether a line is about a command or a flag that the binary does not have yet. */
export function isAhead(line: string): boolean {
  return (
    COMMANDS_AHEAD.some((name) => new RegExp(`\\bnixcache ${name}\\b`).test(line)) ||
    FLAGS_AHEAD.some((text) => {
      const [command, flag = ""] = text.split(" ");
      return new RegExp(`\\bnixcache ${command}\\b`).test(line) && line.includes(flag);
    })
  );
}
