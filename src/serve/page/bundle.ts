/**
 * Run by the bundler, as a macro: the browser's files become texts inside the executable. From source it runs when
 * `assets.ts` is loaded. A macro cannot use the bundler that waits for it, so it starts one of its own.
 * https://bun.com/docs/bundler/macros
 */

/** The minified bundle of one file of `client/`. */
export function bundle(file: string): string {
  const entry = `${import.meta.dir}/client/${file}`;
  const built = Bun.spawnSync([process.execPath, "build", "--minify", "--target=browser", entry]);
  if (built.exitCode !== 0) throw new Error(`${file} cannot be bundled\n${built.stderr.toString()}`);
  return built.stdout.toString();
}
