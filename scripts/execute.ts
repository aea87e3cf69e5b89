/** Programs of a demo or a benchmark: one environment for all, output kept, all ended by one signal. */

/** Standard output of a program. @throws with what it printed when it fails. */
export type Execute = (argv: string[], env?: Record<string, string>) => Promise<string>;

export function createExecute(options: {
  cwd: string;
  env: Record<string, string>;
  signal: AbortSignal;
}): Execute {
  return async (argv, env = {}) => {
    options.signal.throwIfAborted();
    const child = Bun.spawn(argv, {
      cwd: options.cwd,
      env: { ...options.env, ...env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      signal: options.signal,
    });
    const [stdout, stderr, exitCode] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    options.signal.throwIfAborted();
    if (exitCode !== 0)
      throw new Error(`${argv.join(" ")}\nfailed with status ${exitCode}\n${stdout}${stderr}`);
    return stdout;
  };
}

export interface Server {
  readonly url: string;
  readonly pid: number;
  /** Ends it politely, after 5 s by force. */
  stop(): Promise<void>;
}

/**
 * Starts a program that prints `listening on URL` once it accepts connections.
 *
 * @throws with what it printed when it ends before that.
 */
export async function startServer(
  argv: string[],
  options: { cwd: string; env: Record<string, string>; signal: AbortSignal },
): Promise<Server> {
  options.signal.throwIfAborted();
  const child = Bun.spawn(argv, { ...options, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    const force = setTimeout(() => child.kill("SIGKILL"), 5_000);
    await child.exited;
    clearTimeout(force);
  };
  // Both streams are read to their end, so that the program never waits for a full pipe.
  let output = "";
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const read = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
    for await (const text of stream.pipeThrough(new TextDecoderStream() as never) as ReadableStream<string>) {
      output = (output + text).slice(-100_000);
      const url = /listening on (http:\/\/\S+)\s/.exec(output)?.[1];
      if (url !== undefined) resolve(url);
    }
  };
  const ended = Promise.all([read(child.stdout), read(child.stderr), child.exited]);
  void ended.finally(() => resolve(undefined)).catch(() => {});
  const url = await promise;
  options.signal.throwIfAborted();
  if (url === undefined) {
    await stop();
    throw new Error(`${argv.join(" ")}\nended before it was listening\n${output}`);
  }
  return { url, pid: child.pid, stop };
}
