/**
 * What the pages describe ahead of the code, in one place. A test says what has come and must be taken out; all of it is
 * empty in the end.
 */
export const COMMANDS_AHEAD: readonly string[] = [
  ...["pin", "unpin", "pins", "copy"],
  ...["list", "history", "diff", "why"],
];

/** Behind their command. */
export const FLAGS_AHEAD: readonly string[] = [
  ...["serve --at", "gc --roots-from", "pin --keep-days", "pin --keep-revisions"],
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
  // list, history, diff, why, serve --at
  "got …, expected parts of names",
  "There are no wildcards: a word is found anywhere in a name.",
  "--at: got --writable as well, and what was cannot be written to",
  "Leave one of the two out.",
  "--at: got … caches, expected the one whose generation it is",
  "Give --cache once.",
  "… could be … …: ……",
  "Name one: give ….",
  "no generation is called …; …",
  "nixcache history lists them. What is meant is ….",
  "…: … has ended, and what was before it is not known",
  "Name the other generation itself.",
  "…: of the source, system and selection of … there … … before it, expected …",
  "nixcache history lists the generations.",
  "… of … is not there any more",
  "It has ended and was deleted; nixcache history lists what there is.",
  // the modules
  "NIX_SSL_CERT_FILE: got … with no certificate in it, expected certificate authorities",
  "Name a file of PEM certificates, such as /etc/ssl/certs/ca-certificates.crt, or unset it.",
];

export const EXIT_CODES_AHEAD: readonly (readonly [code: string, number: number])[] = [["absent", 17]];

export const VARIABLES_AHEAD: readonly string[] = ["NIX_SSL_CERT_FILE", "NIXCACHE_WRITE_TOKEN_FILE"];

export const PAGES_AHEAD: readonly string[] = ["docs/options.md"];

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
