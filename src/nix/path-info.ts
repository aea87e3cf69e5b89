/**
 * What Nix records about a valid store path, and the reader of `nix path-info --json`, whose shape changed with
 * the years: a list with empty fields left out (2.8 to 2.18, and Lix), an object keyed by path with `null` for
 * absent paths (2.19 on), and `--json-format 2` (2.33 on), which names paths without the store folder.
 *
 * https://nix.dev/manual/nix/latest/protocols/json/store-object-info
 */
import { NixcacheError } from "../errors.ts";
import { canonicalSha256, formatHash, parseHash } from "../nar/hash.ts";

export interface PathInfo {
  /** Full store path. */
  readonly path: string;
  /** `sha256:<base32>` of the NAR. */
  readonly narHash: string;
  /** Bytes of the NAR. */
  readonly narSize: number;
  /** Full store paths, sorted bytewise; its own path is among them when it refers to itself. */
  readonly references: readonly string[];
  /** Full store path of the derivation that made it. */
  readonly deriver?: string;
  /** `name:base64`, in the order of the store. */
  readonly sigs: readonly string[];
  /** The content address as narinfos spell it, such as `fixed:r:sha256:<base32>`. */
  readonly ca?: string;
  /** Built here, not substituted. */
  readonly ultimate: boolean;
  /** Seconds since 1970. */
  readonly registrationTime: number;
}

/**
 * Every path in the output of `nix path-info --json`, in no particular order.
 *
 * @param storeDir the folder that precedes base names where the output has only these.
 * @throws `nix-store` when the text has none of the known shapes or a listed path is not valid; `corrupt` when a
 * hash is none.
 */
export function parsePathInfoJson(output: string, storeDir: string): PathInfo[] {
  let json: unknown;
  try {
    json = JSON.parse(output);
  } catch (cause) {
    throw new NixcacheError("nix-store", "nix path-info printed something that is not JSON", { cause });
  }
  if (Array.isArray(json)) {
    return json.map((item: unknown) => {
      return decode(asObject(item, "nix path-info").path, item, storeDir);
    });
  }
  const object = asObject(json, "nix path-info");
  const keyed = "info" in object && "version" in object ? asObject(object.info, "nix path-info") : object;
  return Object.entries(keyed).map(([path, fields]) => decode(path, fields, storeDir));
}

function decode(name: unknown, value: unknown, storeDir: string): PathInfo {
  const path = inStore(text(name, "nix path-info: path"), storeDir);
  const fields = value === null ? { valid: false } : asObject(value, path);
  if (fields.valid === false) throw new NixcacheError("nix-store", `${path} is not valid in the Nix store`);
  const deriver = fields.deriver ?? "";
  const ca = decodeContentAddress(fields.ca, path);
  return {
    path,
    narHash: canonicalSha256(text(fields.narHash, `${path}: narHash`), `${path}: narHash`),
    narSize: wholeNumber(fields.narSize, `${path}: narSize`, 1),
    references: list(fields, "references", path)
      .map((reference) => inStore(text(reference, `${path}: references`), storeDir))
      .sort(),
    ...(deriver === "" ? {} : { deriver: inStore(text(deriver, `${path}: deriver`), storeDir) }),
    sigs: list(fields, "signatures", path).map(joinSignature),
    ...(ca === undefined ? {} : { ca }),
    ultimate: fields.ultimate === true,
    registrationTime: wholeNumber(fields.registrationTime ?? 0, `${path}: registrationTime`, 0),
  };
}

/** Format 1 has the text that narinfos use; format 2 `{method, hash}`. */
function decodeContentAddress(value: unknown, path: string): string | undefined {
  if (value === undefined || value === null || value === "") return undefined;
  if (typeof value === "string") return value;
  const { method, hash } = asObject(value, `${path}: ca`);
  const prefix = typeof method === "string" ? CA_PREFIXES[method] : undefined;
  if (prefix === undefined) {
    throw new NixcacheError(
      "nix-store",
      `${path}: ca: got method ${JSON.stringify(method)}, expected ${Object.keys(CA_PREFIXES).join(", ")}`,
    );
  }
  return prefix + formatHash(parseHash(text(hash, `${path}: ca`), `${path}: ca`), "base32");
}

const CA_PREFIXES: Readonly<Record<string, string>> = {
  flat: "fixed:",
  nar: "fixed:r:",
  git: "fixed:git:",
  text: "text:",
};

function joinSignature(value: unknown): string {
  if (typeof value === "string") return value;
  const { keyName, sig } = (value ?? {}) as Record<string, unknown>;
  if (typeof keyName === "string" && typeof sig === "string") return `${keyName}:${sig}`;
  throw new NixcacheError(
    "nix-store",
    `nix path-info: got signature ${JSON.stringify(value)}, expected name:base64`,
  );
}

function inStore(name: string, storeDir: string): string {
  return name.startsWith("/") ? name : `${storeDir}/${name}`;
}

function asObject(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new NixcacheError("nix-store", `${where}: got ${shorten(value)}, expected a JSON object`);
}

function list(fields: Record<string, unknown>, name: string, path: string): unknown[] {
  const value = fields[name] ?? [];
  if (Array.isArray(value)) return value;
  throw new NixcacheError("nix-store", `${path}: ${name}: got ${shorten(value)}, expected a list`);
}

function text(value: unknown, where: string): string {
  if (typeof value === "string" && value !== "") return value;
  throw new NixcacheError("nix-store", `${where}: got ${shorten(value)}, expected a text`);
}

function wholeNumber(value: unknown, where: string, least: number): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= least) return value;
  throw new NixcacheError(
    "nix-store",
    `${where}: got ${shorten(value)}, expected a whole number from ${least}`,
  );
}

function shorten(value: unknown): string {
  return (JSON.stringify(value) ?? "nothing").slice(0, 100);
}
