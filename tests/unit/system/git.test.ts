import { expect, test } from "bun:test";
import { webUrl } from "../../../src/system/git.ts";

test.each([
  ["https://github.com/Owner/repo", "https://github.com/Owner/repo"],
  ["https://github.com/Owner/repo.git", "https://github.com/Owner/repo"],
  ["https://user:token@github.com/o/r.git/", "https://github.com/o/r"],
  ["https://x-access-token:ghs_1@host:8443/o/r.git", "https://host:8443/o/r"],
  ["git@github.com:o/r.git", "https://github.com/o/r"],
  ["github.com:o/r", "https://github.com/o/r"],
  ["ssh://git@github.com:22/o/r.git", "https://github.com/o/r"],
  ["git://host/o/r", "https://host/o/r"],
  ["/srv/git/r.git", "/srv/git/r.git"],
  ["../r", "../r"],
  ["file:///srv/r.git", "file:///srv/r.git"],
  ["ftp://user:secret@host/r", "ftp://host/r"],
])("%s", (remote, url) => {
  expect(webUrl(remote)).toBe(url);
});
