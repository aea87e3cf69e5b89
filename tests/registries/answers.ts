/** What each real registry answers is what is recorded of it, which doubles answer by: `bun run test:registries`. */
import { describe, expect, test } from "bun:test";
import { withRealRegistry } from "../support/real-registry.ts";
import { registriesUnderTest } from "../support/real-registry-names.ts";
import { askAll, readRecorded } from "../support/registry-answers.ts";

describe.each(registriesUnderTest())("%s", (name) => {
  test("answers as recorded", () =>
    withRealRegistry(name, async (registry) => {
      const recorded = await readRecorded(name);
      const answers = await askAll(registry);
      // Another version may have other words; what it does is what counts.
      if (registry.version === recorded.version) expect(answers).toEqual(recorded.answers);
      const statuses = (all: typeof answers) =>
        Object.fromEntries(
          Object.entries(all).map(([question, given]) => [question, given.map(({ status }) => status)]),
        );
      expect(statuses(answers)).toEqual(statuses(recorded.answers));
    }));
});
