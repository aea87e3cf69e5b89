/**
 * A registry's program as a process of this machine, on a free port of loopback. Ended by its process id, never by
 * name.
 */
import { createServer } from "node:net";

export interface RegistryProgram {
  /** For messages. */
  readonly name: string;
  /** Its command line on a port. What it reads, such as a file of settings, is written here. */
  command(port: number): Promise<readonly string[]>;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The words by which it logs that it listens. Default: it is asked by HTTP until it answers. */
  readonly listens?: ((port: number) => string) | undefined;
}

export interface RegistryProcess {
  readonly port: number;
  /** What it has logged so far, on both streams. */
  log(): string;
  /** Resolves once it logs `words` after this call. @throws when it ends first */
  logged(words: RegExp): Promise<void>;
  /** Ends it with SIGTERM and waits for that. */
  stop(): Promise<void>;
  /** Starts it again on the same port. */
  start(): Promise<void>;
}

/** Between two questions whether it listens, in milliseconds. */
const ASK_EVERY_MS = 20;
/** Ports that are tried: somebody may take one meanwhile. */
const TRIES = 5;

/** @throws with its log when it ends before it listens. */
export async function startProcess(program: RegistryProgram): Promise<RegistryProcess> {
  let child: Bun.Subprocess<"ignore", "pipe", "pipe"> | undefined;
  let port = 0;
  let log = "";
  let onLog: (() => void)[] = [];

  const take = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      log += decoder.decode(chunk, { stream: true });
      for (const look of onLog) look();
    }
  };

  /** Whether the log from `from` on has the words before the process ends. */
  const says = (running: Bun.Subprocess, words: RegExp, from: number): Promise<boolean> => {
    const said = Promise.withResolvers<boolean>();
    const look = () => words.test(log.slice(from)) && said.resolve(true);
    onLog.push(look);
    look();
    void running.exited.then(() => said.resolve(false));
    return said.promise.finally(() => {
      onLog = onLog.filter((other) => other !== look);
    });
  };

  /** @returns false when it ended first, such as when the port was taken meanwhile. */
  const launch = async (): Promise<boolean> => {
    // What an earlier run has logged says nothing of this one.
    const from = log.length;
    const running = Bun.spawn([...(await program.command(port))], {
      env: { ...process.env, ...program.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    child = running;
    void take(running.stdout);
    void take(running.stderr);
    const words = program.listens?.(port);
    return words === undefined
      ? answers(running, port)
      : says(running, new RegExp(RegExp.escape(words)), from);
  };

  const stop = async (): Promise<void> => {
    child?.kill("SIGTERM");
    await child?.exited;
    child = undefined;
  };

  const doesNotStart = () => new Error(`${program.name} does not start: ${log}`);

  for (let tries = 1; ; tries++) {
    port = await freePort();
    if (await launch()) break;
    await stop();
    if (tries === TRIES) throw doesNotStart();
  }
  return {
    port,
    log: () => log,
    logged: async (words) => {
      if (child === undefined || !(await says(child, words, log.length)))
        throw new Error(`${program.name} ended before it logged ${words}: ${log}`);
    },
    stop,
    start: async () => {
      if (child === undefined && !(await launch())) throw doesNotStart();
    },
  };
}

/** Whether it answers, with whatever, before it ends. */
async function answers(running: Bun.Subprocess, port: number): Promise<boolean> {
  while (running.exitCode === null && running.signalCode === null) {
    const asked = fetch(`http://127.0.0.1:${port}/v2/`, { keepalive: false });
    if (await asked.then(() => true).catch(() => false)) return running.exitCode === null;
    await Bun.sleep(ASK_EVERY_MS);
  }
  return false;
}

/** Free now; somebody may take it before it is used, so whoever asks tries again. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
