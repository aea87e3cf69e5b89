/** Writes tests/fixtures/registries/ anew, by the registries that there are: `bun run test:registries --record`. */
import { withRealRegistry } from "../tests/support/real-registry.ts";
import { registriesUnderTest } from "../tests/support/real-registry-names.ts";
import { askAll, type RecordedRegistry, recordedFile } from "../tests/support/registry-answers.ts";
import { runScript } from "./process.ts";

await runScript(async () => {
  for (const name of registriesUnderTest()) {
    const recorded = await withRealRegistry(
      name,
      async (registry): Promise<RecordedRegistry> => ({
        program: name,
        version: registry.version,
        answers: await askAll(registry),
      }),
    );
    await Bun.write(recordedFile(name), `${JSON.stringify(recorded, null, 2)}\n`);
    console.log(`${name} ${recorded.version}: ${Object.keys(recorded.answers).length} questions`);
  }
  return 0;
});
