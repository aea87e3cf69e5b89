/** Another user of the machine, who attacks: `nobody`. Root becomes it, others do by `sudo`. */

export const OTHER_UID = 65534;
const SET_USER = ["setpriv", `--reuid=${OTHER_UID}`, `--regid=${OTHER_UID}`, "--clear-groups"];

const prefix = process.getuid?.() === 0 ? SET_USER : ["sudo", "-n", ...SET_USER];

export function hasOtherUser(): boolean {
  if (Bun.which("setpriv") === null || Bun.which(prefix[0] as string) === null) return false;
  return Bun.spawnSync([...prefix, "true"], { stdout: "ignore", stderr: "ignore" }).exitCode === 0;
}

/** What to run for the other user to run it. */
export function asOther(argv: readonly string[]): string[] {
  return [...prefix, ...argv];
}

/** Has the other user run a shell script. @throws when it fails */
export function otherRuns(script: string, ...args: readonly string[]): void {
  const child = Bun.spawnSync(asOther(["sh", "-euc", script, "sh", ...args]), { stderr: "pipe" });
  if (child.exitCode !== 0) throw new Error(`the other user: ${child.stderr.toString()}`);
}
