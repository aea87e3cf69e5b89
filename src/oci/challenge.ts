/**
 * The `WWW-Authenticate` header: how a registry says which token or password it wants.
 * https://www.rfc-editor.org/rfc/rfc9110#name-www-authenticate, https://distribution.github.io/distribution/spec/auth/token/
 */

export interface Challenge {
  /** Lower case: `bearer`, `basic`. */
  readonly scheme: string;
  /** Names in lower case; of a name that comes twice, the first. */
  readonly parameters: ReadonlyMap<string, string>;
}

/** Longer headers are cut here: Bun takes 16 KiB of headers in all. */
const MAX_LENGTH = 16_384;

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;

/**
 * The challenges of one header, also of several that were joined by commas, as fetch does. Stops at what it
 * cannot read and returns what came before. Never throws.
 */
export function parseChallenges(header: string | null): Challenge[] {
  if (header === null) return [];
  const text = header.slice(0, MAX_LENGTH);
  const challenges: Challenge[] = [];
  let at = 0;

  const skip = (characters: string): void => {
    while (at < text.length && characters.includes(text[at] ?? "")) at++;
  };
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) at += found.length;
    return found;
  };
  const value = (): string | undefined => (text[at] === '"' ? quoted() : take(TOKEN));
  const quoted = (): string | undefined => {
    let result = "";
    for (let i = at + 1; i < text.length; i++) {
      const c = text[i] ?? "";
      if (c === '"') {
        at = i + 1;
        return result;
      }
      // An escape stands for the character after it.
      if (c === "\\") i++;
      result += text[i] ?? "";
    }
    return undefined;
  };

  for (;;) {
    skip(" \t,");
    const scheme = take(TOKEN);
    if (scheme === undefined) return challenges;
    const parameters = new Map<string, string>();
    challenges.push({ scheme: scheme.toLowerCase(), parameters });
    skip(" \t");
    if (text[at] !== "," && take(TOKEN68) !== undefined) continue;

    for (;;) {
      skip(" \t,");
      const start = at;
      const name = take(TOKEN);
      skip(" \t");
      if (name === undefined || text[at] !== "=") {
        // Not a parameter: the scheme of the next challenge, or something that the outer loop gives up on.
        at = start;
        break;
      }
      at++;
      skip(" \t");
      const found = value();
      if (found === undefined) return challenges;
      if (!parameters.has(name.toLowerCase())) parameters.set(name.toLowerCase(), found);
    }
  }
}
