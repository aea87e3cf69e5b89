/** What `scripts/build.ts` writes into the binary; run from source it is a development version. */
declare const NIXCACHE_VERSION: string;
declare const NIXCACHE_COMMIT: string;
declare const NIXCACHE_DATE: string;
declare const NIXCACHE_REPOSITORY: string;

export const VERSION = typeof NIXCACHE_VERSION === "string" ? NIXCACHE_VERSION : "0.0.0-dev";
export const COMMIT = typeof NIXCACHE_COMMIT === "string" ? NIXCACHE_COMMIT : "unknown";

/** The day of the commit, such as `2026-11-23`; empty where nobody knows. */
export const DATE = typeof NIXCACHE_DATE === "string" ? NIXCACHE_DATE : "";

/** `OWNER/REPO` at GitHub where the releases of this build are; empty where nobody knows. */
export const REPOSITORY = typeof NIXCACHE_REPOSITORY === "string" ? NIXCACHE_REPOSITORY : "";

/** Such as `nixcache 1.2.3`; also what servers see as User-Agent. */
export const TOOL = `nixcache ${VERSION}`;
export const USER_AGENT = `nixcache/${VERSION}`;
