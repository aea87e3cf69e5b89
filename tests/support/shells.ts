/** Completion in real shells: what comes out when somebody presses Tab. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The folder has the completion's files, and is where the shells are. */
export interface CompletionFiles {
  readonly folder: string;
  readonly bash: string;
  readonly zsh: string;
  readonly fish: string;
}

async function run(argv: readonly string[], folder: string): Promise<string> {
  const env = { PATH: process.env.PATH ?? "", HOME: folder, TERM: "xterm", LC_ALL: "C.UTF-8" };
  const child = Bun.spawn([...argv], { cwd: folder, env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (code !== 0 || stderr !== "") throw new Error(`${argv.join(" ")}: status ${code}\n${stdout}${stderr}`);
  return stdout;
}

/** The candidates for the last of `words`, as readline splits a line. */
export async function inBash({ folder, bash }: CompletionFiles, words: readonly string[]): Promise<string[]> {
  const script = join(folder, "try.bash");
  await writeFile(
    script,
    `. ${bash}; COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}
complete -p nixcache >/dev/null || exit 1
_nixcache
[ \${#COMPREPLY[@]} = 0 ] || printf '%s\\n' "\${COMPREPLY[@]}"`,
  );
  return lines(await run(["bash", "--norc", "--noprofile", "-eu", script], folder));
}

/** The candidates for the end of a line. */
export async function inFish({ folder, fish }: CompletionFiles, line: string): Promise<string[]> {
  const out = await run(["fish", "--no-config", "-c", `source ${fish}; complete -C '${line}'`], folder);
  return lines(out).map((found) => found.split("\t")[0] ?? "");
}

/**
 * The lines after Tab, each typed into an interactive zsh on a terminal of its own.
 *
 * @param install how the completion gets into the shell, in its own words
 */
export async function inZsh(
  { folder }: CompletionFiles,
  typed: readonly string[],
  install: string,
): Promise<string[]> {
  const [setup, script, out] = ["setup.zsh", "try.zsh", "out"].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  await writeFile(out, "");
  await writeFile(
    setup,
    `autoload -Uz compinit; ${install}
tell() { print -r -- "$BUFFER" >> ${out}; BUFFER=; }
zle -N tell; bindkey '^Xt' tell; setopt no_beep; unsetopt auto_list; PS1=READY`,
  );
  await writeFile(
    script,
    `zmodload zsh/zpty; zpty z zsh -f -i; zpty -w z '. ${setup}'
# The prompt itself: what is echoed of the line above has no such word.
zpty -r z seen '*READY*'
${typed.map((line) => `zpty -w -n z $'${line}\\t\\x18t'`).join("\n")}
zpty -w z exit
while zpty -r z seen; do :; done`,
  );
  await run(["zsh", "-f", script], folder);
  return lines(await Bun.file(out).text());
}

function lines(text: string): string[] {
  return text.split("\n").filter((line) => line !== "");
}
