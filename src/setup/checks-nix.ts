/** Whether Nix is there, asks us, and takes what we give it. */
import { formatPublicKey } from "../nar/signing-key.ts";
import { askAcceptance } from "../nix/acceptance.ts";
import { isTooOld, LEAST_NIX } from "../nix/least-version.ts";
import { isSameCache } from "../nix/narinfo-cache.ts";
import { type Check, note, ok, skipped, wrong } from "./check.ts";
import { proxyChecks } from "./check-proxy.ts";
import { checkRemembered } from "./check-remembered.ts";
import type { Facts } from "./facts.ts";
import { sample } from "./sample.ts";

/** Paths looked at until one is found that a key vouches for. */
const CANDIDATES = 50;

/** @param written whether nix.conf has just been given what Nix should see */
export function nixChecks(facts: Facts, written: boolean): Check[] {
  const { url } = facts;
  const use = written
    ? "Something that Nix reads later replaces it: look into NIX_CONFIG, NIX_USER_CONF_FILES, NIX_CONFIG_HOME and the end of its other files."
    : `Run: ${facts.useCommand}`;
  const checks: Check[] = [
    {
      name: "substituters",
      run: async () => {
        const { substituters } = await facts.configuration();
        if (substituters.some((other) => isSameCache(other, url))) return ok(`Nix asks ${url}`);
        return wrong(`Nix does not ask ${url}, only ${substituters.join(", ") || "nobody"}`, use);
      },
    },
    ...proxyChecks(facts),
    { name: "keys", run: () => checkKeys(facts, use) },
    {
      name: "require-sigs",
      run: async () => {
        const { requireSigs } = await facts.configuration();
        if (requireSigs) return ok("Nix takes only what a key that it trusts has signed");
        return note(
          "Nix takes paths without a signature, from anybody",
          "Leave require-sigs out of nix.conf.",
        );
      },
    },
    { name: "daemon", run: () => checkDaemon(facts) },
    { name: "accepts", run: () => checkAcceptance(facts, use) },
    { name: "remembered", run: () => checkRemembered(facts) },
  ];
  const tooOld = async () => isTooOld((await facts.version()) ?? "");
  const asked = ({ name, run }: Check): Check => ({
    name,
    run: async () => ((await tooOld()) ? skipped("this Nix is too old to be asked") : run()),
  });
  return [{ name: "nix", run: () => checkVersion(facts) }, ...checks.map(asked)];
}

async function checkVersion(facts: Facts) {
  const version = await facts.version();
  if (version === undefined) return note("Nix is here, and does not say its version");
  if (!isTooOld(version)) return ok(`Nix ${version}`);
  return wrong(
    `Nix ${version} cannot unpack what the cache holds, which is compressed by zstd`,
    `Install Nix ${LEAST_NIX} or newer.`,
  );
}

async function checkKeys(facts: Facts, use: string) {
  const keys = (await facts.keys()).map(formatPublicKey);
  if (keys.length === 0) {
    const { error } = await facts.index();
    if (error !== undefined)
      return skipped(`by which key the cache is signed is not known: ${error.message}`);
    return wrong(
      `nothing in ${facts.cacheName} is signed, so Nix takes nothing from it`,
      "Make a key with nixcache keygen NAME, and publish with --signing-key-file.",
    );
  }
  const { trustedPublicKeys } = await facts.configuration();
  const names = (texts: readonly string[]) => texts.map(nameOf).join(", ");
  // Of keys with one name Nix takes the first.
  const shadowed = keys.filter((key) => {
    const first = trustedPublicKeys.find((other) => nameOf(other) === nameOf(key));
    return first !== undefined && first !== key;
  });
  if (shadowed.length > 0) {
    return wrong(
      `Nix trusts another key of the name ${names(shadowed)} than the one that the cache is signed by`,
      "Find out which is right, and take the other out of trusted-public-keys.",
    );
  }
  const missing = keys.filter((key) => !trustedPublicKeys.includes(key));
  if (missing.length > 0)
    return wrong(`Nix does not trust ${names(missing)}, by which the cache is signed`, use);
  return ok(`Nix trusts ${names(keys)}, by which the cache is signed`);
}

/** Whether whoever fetches the paths goes by the settings that we see. */
async function checkDaemon(facts: Facts) {
  const trust = await facts.trust();
  if (trust.kind === "no-daemon") return ok("no daemon stands between this user and the Nix store");
  if (trust.kind === "trusted") return ok(`the Nix daemon trusts ${trust.user}`);
  const { daemon, user } = trust;
  const allowed = [...daemon.substituters, ...daemon.trustedSubstituters];
  const keys = (await facts.keys()).map(formatPublicKey);
  if (
    allowed.some((other) => isSameCache(other, facts.url)) &&
    keys.every((key) => daemon.trustedPublicKeys.includes(key))
  ) {
    return ok("the Nix daemon's own configuration has the cache");
  }
  return wrong(
    `the Nix daemon ignores the substituters and keys of ${user}, who is not among its trusted-users (${daemon.trustedUsers.join(" ")})`,
    `Run: sudo ${facts.useCommand} --mode system. Or put ${user} into trusted-users in /etc/nix/nix.conf, which gives the rights of root, and restart nix-daemon.`,
  );
}

async function checkAcceptance(facts: Facts, use: string) {
  const { run, env, url, folder, signal, host } = facts;
  const answerer = await facts.answerer();
  if (answerer.kind === "nobody" || answerer.kind === "stranger")
    return skipped(`nothing is served at ${url}`);
  const { signed, unsigned } = sample((await facts.index()).view, await facts.keys(), CANDIDATES, host);
  const path = signed[0] ?? unsigned[0];
  if (path === undefined) return skipped("the cache has no path to try it with");
  const acceptance = await askAcceptance(run, env, { path, url, folder, signal });
  if (acceptance.kind === "accepted") return ok(`Nix would take ${path} from ${url}`);
  if (acceptance.kind === "untrusted") {
    return wrong(`Nix would refuse ${path}, for want of a signature by a key that it trusts`, use);
  }
  return wrong(
    `Nix cannot have ${path} from ${url}: ${acceptance.reason}`,
    `See whether serve serves this cache: ${facts.serveCommand}`,
  );
}

function nameOf(key: string): string {
  return key.slice(0, Math.max(0, key.indexOf(":")));
}
