import { indexFile } from "../config.ts";
import { EXIT_CODES } from "../errors.ts";
import { runChecks } from "../setup/check.ts";
import { cacheChecks } from "../setup/checks-cache.ts";
import { nixChecks } from "../setup/checks-nix.ts";
import { serveChecks } from "../setup/checks-serve.ts";
import { findingLines } from "../terminal/findings.ts";
import { formatCount } from "../terminal/format.ts";
import { resultJson } from "../terminal/result-json.ts";
import { VERSION } from "../version.ts";
import { CLIENT_ARGS, openFacts, wholeReference } from "./client-args.ts";
import { cacheArgs, command } from "./command.ts";

/** All questions are asked at once, so this is how long the whole may take. Milliseconds. */
const ASK_WITHIN_MS = 5_000;

/** Until what was cut off has said so itself. */
const ANSWER_WITHIN_MS = ASK_WITHIN_MS + 500;

export const doctor = command(
  { name: "doctor", description: "Say what is right and what is wrong, between Nix, serve and the cache" },
  {
    cache: cacheArgs("").cache,
    ...CLIENT_ARGS,
    json: { type: "boolean", description: "Print what was found as JSON" },
  },
  async (given, context) => {
    // What still hangs then must not keep the process.
    context.stopsItself();
    const reference = wholeReference(given.text("cache"), context);
    const limit = AbortSignal.timeout(ASK_WITHIN_MS);
    using open = openFacts(given, reference, { limit, boundIndex: true }, context);
    const { facts, registry } = open;
    const checks = [
      ...nixChecks(facts, false),
      ...serveChecks(facts, VERSION),
      ...cacheChecks(facts, { registry, indexFile: indexFile(reference, context.env) }),
    ];
    const findings = await runChecks(checks, ANSWER_WITHIN_MS, context.host);
    context.signal.throwIfAborted();
    const count = findings.filter(({ state }) => state === "wrong").length;
    if (given.flag("json")) {
      context.print(resultJson({ cache: facts.cacheName, url: facts.url, ok: count === 0, findings }));
    } else {
      for (const line of findingLines(findings)) context.print(line);
    }
    if (count === 0) return context.log.success("all is right");
    context.log.error(`${formatCount(count, "thing is", "things are")} wrong`);
    context.setExitCode(EXIT_CODES.unwell);
  },
);
