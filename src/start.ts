/**
 * Where the executable begins: what needs nothing is answered before the rest of it is loaded, which takes five times
 * as long as all else.
 */
import { COMMIT, VERSION } from "./version.ts";

const [name] = process.argv.slice(2);
// Not process.stdout, which loads the streams.
if (name === "--version" || name === "-v") console.log(`nixcache ${VERSION} (${COMMIT})`);
else await import("./main.ts");
