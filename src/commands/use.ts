import { existsSync } from "node:fs";
import { nixConfFile } from "../config.ts";
import type { Context } from "../context.ts";
import { EXIT_CODES, NixcacheError } from "../errors.ts";
import { formatPublicKey } from "../nar/signing-key.ts";
import { STORE_DIR } from "../nar/store-path.ts";
import { locateStore } from "../nix/location.ts";
import { runChecks } from "../setup/check.ts";
import { nixChecks } from "../setup/checks-nix.ts";
import { serveChecks } from "../setup/checks-serve.ts";
import { addToConf, GeneratedFile, removeFromConf } from "../setup/conf-file.ts";
import type { Facts } from "../setup/facts.ts";
import { type ConfLines, confLines } from "../setup/nix-conf.ts";
import { nixosLines } from "../setup/nixos-lines.ts";
import { findKeys } from "../setup/trusted-keys.ts";
import { findingLines } from "../terminal/findings.ts";
import { VERSION } from "../version.ts";
import { CLIENT_ARGS, openFacts, wholeReference } from "./client-args.ts";
import { command, usageError } from "./command.ts";

const MODES = ["user", "system", "nixos"] as const;
type Mode = (typeof MODES)[number];

/** For the questions after the writing. Milliseconds. */
const ASK_WITHIN_MS = 10_000;

export const use = command(
  { name: "use", description: "Make Nix on this machine use a cache, through serve" },
  {
    ref: {
      type: "positional",
      required: false,
      valueHint: "REF",
      description: "The cache: HOST/NAME, OWNER/REPO for GHCR, or a folder",
    },
    mode: {
      type: "string",
      valueHint: MODES.join("|"),
      description:
        "Write your own nix.conf, the machine's, or print what a NixOS configuration says (nixos on NixOS, system as root, else user)",
    },
    remove: { type: "boolean", description: "Take out again what was written" },
    print: { type: "boolean", description: "Print the lines, and write nothing" },
    ...CLIENT_ARGS,
  },
  async (given, context) => {
    const mode = readMode(given.text("mode"));
    const reference = wholeReference(given.positionals[0], context);
    const late = new AbortController();
    using open = openFacts(given, reference, { limit: late.signal, boundIndex: false }, context);
    const { facts } = open;
    if (given.flag("remove")) {
      if (given.flag("print")) throw usageError("--remove and --print exclude each other");
      return await remove(mode, facts, context);
    }
    const keys = await keysOf(facts, context);
    const lines = { cache: facts.cacheName, url: facts.url, keys };
    if (mode === "nixos") return context.print(nixosLines(reference, facts.url, keys));
    if (given.flag("print")) return context.print(confLines(lines).join("\n"));

    const file = await confFile(mode, facts);
    const { log } = context;
    const added = add(file, lines, () => context.print(nixosLines(reference, facts.url, keys)), facts);
    if (added !== undefined) {
      log.success(`wrote ${file}:`);
      for (const line of added) log.info(`  ${line}`);
    } else log.success(`${file} says so already`);
    if (mode === "system") tellOfDaemon(context);
    log.info(`undo it with: nixcache use ${facts.cacheName} --remove --mode ${mode}`);
    const timer = setTimeout(() => late.abort(new Error("no answer in time")), ASK_WITHIN_MS);
    try {
      await check(facts, context);
    } finally {
      clearTimeout(timer);
    }
  },
);

/** @param showInstead what the person can do where the file is generated */
function add(
  file: string,
  lines: ConfLines,
  showInstead: () => void,
  { env }: Facts,
): readonly string[] | undefined {
  try {
    return addToConf(file, lines, env.NIX_STORE_DIR || STORE_DIR);
  } catch (error) {
    if (error instanceof GeneratedFile) showInstead();
    throw error;
  }
}

function readMode(given: string | undefined): Mode {
  if (given === undefined) {
    if (existsSync("/etc/NIXOS")) return "nixos";
    return process.getuid?.() === 0 ? "system" : "user";
  }
  const mode = MODES.find((mode) => mode === given);
  if (mode === undefined)
    throw usageError(`--mode: got ${JSON.stringify(given)}, expected one of ${MODES.join(", ")}`);
  return mode;
}

async function confFile(mode: "user" | "system", { env, version }: Facts): Promise<string> {
  return nixConfFile(mode, env, env.NIX_CONFIG_HOME ? await version().catch(() => undefined) : undefined);
}

/** Says where each key comes from: whoever may publish has named it. */
async function keysOf(facts: Facts, { log }: Context): Promise<string[]> {
  if (facts.givenKeys.length > 0) return facts.givenKeys.map(formatPublicKey);
  const { view, error } = await facts.index();
  const { keys, sources, unsigned } = findKeys(view.publishes());
  if (keys.length === 0) {
    if (error !== undefined) throw error;
    throw new NixcacheError(
      "key",
      sources === 0
        ? `${facts.cacheName}: nothing was published there yet, so its key is not known`
        : `${facts.cacheName}: nothing in it is signed, and Nix takes no path that no trusted key has signed`,
      {
        hint: "Publish with --signing-key-file and a key of nixcache keygen; or name the key with --trusted-public-key.",
      },
    );
  }
  if (error !== undefined) log.warn(`taking the keys that were known before: ${error.message}`);
  for (const { text, from } of keys) {
    log.info(`${text} has signed the publish of ${from.source} of ${from.time}`);
  }
  if (unsigned > 0)
    log.warn(`${unsigned} of ${sources} sources are not signed: Nix will take nothing of those`);
  log.info("Whoever may publish there has named it: compare it with what the owner of the cache says.");
  return keys.map(({ text }) => text);
}

async function remove(mode: Mode, facts: Facts, context: Context): Promise<void> {
  const { log } = context;
  if (mode === "nixos")
    throw usageError("--remove is for what was written; on NixOS take the lines out yourself");
  const file = await confFile(mode, facts);
  const { view } = facts.openCache().database;
  const keys = new Set([
    ...facts.givenKeys.map(formatPublicKey),
    ...findKeys(view.publishes()).keys.map(({ text }) => text),
  ]);
  const { changed, left } = removeFromConf(file, { cache: facts.cacheName, url: facts.url, keys: [...keys] });
  if (changed) log.success(`${file} says nothing of ${facts.cacheName} any more`);
  else log.info(`${file} has no lines of nixcache use for ${facts.cacheName}`);
  if (left.length > 0)
    log.warn(`${file} line ${left.join(", ")} still names it beside others; take it out by hand`);
  if (changed && mode === "system") tellOfDaemon(context);
}

function tellOfDaemon({ env, log }: Context): void {
  if (!existsSync(locateStore(undefined, env, process.cwd()).daemonSocket)) return;
  const restart =
    process.platform === "darwin"
      ? "sudo launchctl kickstart -k system/org.nixos.nix-daemon"
      : "sudo systemctl restart nix-daemon";
  log.info(`the Nix daemon reads its configuration when it starts: ${restart}`);
}

/** Whether it works, by asking Nix and serve. */
async function check(facts: Facts, { host, log, print, setExitCode, signal }: Context): Promise<void> {
  const [serve] = serveChecks(facts, VERSION);
  const checks = [...nixChecks(facts, true), ...(serve ? [serve] : [])];
  const findings = await runChecks(checks, ASK_WITHIN_MS + 500, host);
  signal.throwIfAborted();
  for (const line of findingLines(findings)) print(line);
  const isWrong = (names: (name: string) => boolean) =>
    findings.some(({ check, state }) => state === "wrong" && names(check));
  if (isWrong((name) => name !== "serve")) {
    log.error("Nix will not use the cache as it is");
    setExitCode(EXIT_CODES.unwell);
  } else if (isWrong((name) => name === "serve")) {
    log.warn("Nix will use the cache once it is served there");
  } else log.success(`Nix uses ${facts.cacheName}`);
}
