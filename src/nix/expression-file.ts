/**
 * A Nix expression that is longer than an argument can be: a file that the argument imports.
 *
 * A flake is evaluated purely, where only what has a known hash can be read. So the file is fetched as a tree with its
 * NAR hash, which copies it into the store; the garbage collector takes it from there.
 */
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { messageOf, NixcacheError } from "../errors.ts";
import { encodeWords, NAR_MAGIC } from "../nar/archive.ts";
import { makeTemporaryFolder, UnsafeFolder } from "../system/own-folder.ts";
import { nixString } from "./nix-string.ts";

const NAME = "expression.nix";

export interface ExpressionFile extends AsyncDisposable {
  /** An expression with the same value, for where evaluation is pure. */
  readonly pure: string;
  /** The same for where it is not. */
  readonly impure: string;
}

/**
 * @param temporary the folder to make it in; it is removed by disposing of it
 * @throws `filesystem`
 */
export async function writeExpression(expression: string, temporary: string): Promise<ExpressionFile> {
  let folder: string | undefined;
  const remove = async () => {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  };
  try {
    folder = makeTemporaryFolder(temporary, "nixcache-expression-");
    const file = join(folder, NAME);
    await writeFile(file, expression);
    const tree = `{ type = "path"; path = ${nixString(folder)}; narHash = "${narHashOf(expression)}"; }`;
    return {
      pure: `import "\${builtins.fetchTree ${tree}}/${NAME}"`,
      impure: `import ${nixString(file)}`,
      [Symbol.asyncDispose]: remove,
    };
  } catch (cause) {
    await remove();
    if (cause instanceof UnsafeFolder) throw cause;
    throw new NixcacheError(
      "filesystem",
      `cannot write a temporary file in ${temporary}: ${messageOf(cause)}`,
      {
        hint: "Free some space, or set TMPDIR to a folder that can be written.",
        cause,
      },
    );
  }
}

/** Of a folder that has this text as its only file. */
function narHashOf(text: string): string {
  const file = ["(", "type", "regular", "contents", text, ")"];
  const folder = ["(", "type", "directory", "entry", "(", "name", NAME, "node", ...file, ")", ")"];
  const digest = new Bun.CryptoHasher("sha256").update(encodeWords(NAR_MAGIC, ...folder)).digest("base64");
  return `sha256-${digest}`;
}
