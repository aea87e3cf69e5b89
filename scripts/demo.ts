/**
 * From a store path to a substituted path, on real parts: `bun run demo`.
 *
 * A real Nix builds a program and what it refers to; nixcache publishes it, signed, to an OCI layout in a
 * temporary folder and serves that; a second, empty Nix store that checks signatures substitutes it; and the
 * program runs from there. Nothing is fetched from the Internet but what has to be installed, and nothing stays.
 */
import { mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { messageOf } from "../src/errors.ts";
import { build } from "./build.ts";
import { buildDemoPaths, EXPERIMENTAL } from "./demo-nix.ts";
import { createExecute, type Server, startServer } from "./execute.ts";
import { ensureParts } from "./parts.ts";
import { ROOT, runScript } from "./process.ts";
import { Steps } from "./steps.ts";

const KEY_NAME = "nixcache-demo-1";

await runScript(async () => {
  const abort = new AbortController();
  for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.once(name, () => abort.abort(new Error(`\nInterrupted (${name}); cleaned up.`)));
  }
  const isTerminal = process.stdout.isTTY === true;
  const useColor = isTerminal && !process.env.NO_COLOR;
  const out = { write: (text: string) => void process.stdout.write(text), isTerminal, useColor };
  const steps = new Steps(out, () => performance.now());
  const folder = await realpath(await mkdtemp(join(tmpdir(), "nixcache-demo-")));
  try {
    await demo(folder, steps, abort.signal);
    return 0;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    console.error(messageOf(abort.signal.reason));
    return 130;
  } finally {
    await removeFolder(folder);
  }
});

async function demo(folder: string, steps: Steps, signal: AbortSignal): Promise<void> {
  const env = environment(folder);
  const execute = createExecute({ cwd: folder, env, signal });

  await steps.step("Find Nix", async () => {
    await ensureParts(["nix"]);
    return { value: undefined, result: (await execute(["nix", "--version"])).trim() };
  });

  const nixcache = await steps.step("Build the binary", async () => {
    const value = await build();
    const size = Math.round(Bun.file(value).size / 2 ** 20);
    return { value, result: `${relative(ROOT, value)}, ${size} MiB` };
  });

  const [secretKey, publicKey] = [join(folder, "secret.key"), join(folder, "public.key")];
  const trusted = await steps.step("Make a signing key", async () => {
    await execute([nixcache, "keygen", KEY_NAME, secretKey, publicKey]);
    const value = (await Bun.file(publicKey).text()).trim();
    return { value, result: shorten(value) };
  });

  const { nix, hello } = await steps.step("Build with Nix", async () => {
    const value = await buildDemoPaths(folder, execute);
    const closure = await execute(["nix-store", "--query", "--requisites", value.hello], value.nix.env);
    return { value, result: `${closure.trim().split("\n").length} store paths ${value.nix.description}` };
  });

  const cache = `oci:${join(folder, "cache")}`;
  const publish = [
    nixcache,
    "publish",
    hello,
    "--cache",
    cache,
    "--signing-key-file",
    secretKey,
    "--upstream",
    "",
  ];
  await steps.step("Publish", async () => {
    await execute(publish, nix.env);
    return { value: undefined, result: "signed, into an OCI layout" };
  });

  const server = await steps.step("Serve", async () => {
    const argv = [nixcache, "serve", "--cache", cache, "--port", "0", "--upstream", ""];
    const value = await startServer(argv, { cwd: folder, env, signal });
    return { value, result: value.url };
  });

  try {
    const second = join(folder, "second-store");
    const wrongKey = `${KEY_NAME}:${Buffer.alloc(32, 7).toString("base64")}`;
    await steps.step("Try with a wrong key", async () => {
      const error = await substitute(server, join(folder, "third-store"), wrongKey).then(
        () => undefined,
        (reason: Error) => reason,
      );
      if (error === undefined) throw new Error("a store that trusts another key took the paths");
      // Any other failure proves nothing.
      if (!/lacks a (valid )?signature/.test(error.message)) throw error;
      return { value: undefined, result: "refused, as it must be" };
    });

    await steps.step("Substitute", async () => {
      await substitute(server, second, trusted);
      const paths = await execute(["nix-store", "--query", "--requisites", hello], {
        ...nix.env,
        NIX_REMOTE: second,
      });
      const count = paths.trim().split("\n").length;
      return { value: undefined, result: `${count} store paths into an empty store, signatures checked` };
    });

    await steps.step("Run it", async () => {
      const output = await execute(["sh", join(second, hello)]);
      if (!output.includes("came through nixcache"))
        throw new Error(`the program printed ${JSON.stringify(output)}`);
      return { value: undefined, result: output.trim() };
    });

    async function substitute(from: Server, store: string, key: string): Promise<void> {
      const options = ["--option", "require-sigs", "true", "--option", "trusted-public-keys", key];
      await execute(["nix", ...EXPERIMENTAL, "copy", "--from", from.url, "--to", store, hello, ...options], {
        ...nix.env,
        // Nix remembers what a cache had; each store shall ask afresh.
        XDG_CACHE_HOME: `${store}-cache`,
      });
    }
  } finally {
    await server.stop();
  }

  steps.end("nixcache works on this machine");
  if (nix.leavesPaths) console.log(`${hello} and what it refers to stay until \`nix-collect-garbage\`.`);
}

/** The caller's environment without what would lead Nix or nixcache to the caller's own stores and settings. */
function environment(folder: string): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && !/^(NIX|NIXCACHE)_/.test(name)) env[name] = value;
  }
  return {
    ...env,
    HOME: join(folder, "home"),
    XDG_CACHE_HOME: join(folder, "home/cache"),
    XDG_CONFIG_HOME: join(folder, "home/config"),
    XDG_DATA_HOME: join(folder, "home/data"),
  };
}

function shorten(text: string): string {
  return text.length > 50 ? `${text.slice(0, 49)}…` : text;
}

/** Folders in a Nix store are read-only, which stops anybody but root from emptying them. */
async function removeFolder(folder: string): Promise<void> {
  await Bun.spawn(["chmod", "-R", "u+w", folder], { stderr: "ignore" }).exited;
  await rm(folder, { recursive: true, force: true });
}
