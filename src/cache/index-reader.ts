/**
 * Questions to the local index: the union of the layers that the reader chose. What the layers say is in their files,
 * what is known about them in SQLite.
 */
import type { Database, Statement } from "bun:sqlite";
import { NixcacheError } from "../errors.ts";
import { type PublicKey, publicKeysAmong } from "../nar/signing-key.ts";
import { STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import type { Attachment } from "./attachment.ts";
import { buildsOf, compareShown, type KeyRing, shownLine } from "./builds.ts";
import { type EntryLine, filesOf } from "./entry.ts";
import type { Generation } from "./index-layer.ts";
import type { LayerFile } from "./layer-file.ts";
import { everyLineAt, mergeLayers, type Place } from "./layer-merge.ts";
import { firstRank, hashKey } from "./layer-table.ts";
import type { BlobReference } from "./manifests.ts";
import type { Part } from "./part.ts";
import { type PublishRecord, v1Record } from "./record.ts";
import { type GenerationId, type GenerationName, generationName } from "./tags.ts";

/** SHA-256 in base32, with which the file name of a NAR begins. */
const FILE_HASH_DIGITS = 52;

export interface LayerRow {
  readonly id: number;
  readonly digest: Digest;
  /** Compressed bytes. */
  readonly size: number;
  /** Place in the root's stack from below; null for a segment's own layer. */
  readonly position: number | null;
  /** Of a root layer, as its manifest has them. */
  readonly signatures: string | null;
}

/** What the reader remembers between refreshes. */
export interface ViewState {
  /** Digest of the root manifest that the view was made from. */
  rootDigest?: Digest | undefined;
  /** When the tags were last listed, in milliseconds since 1970. */
  listedAt?: number | undefined;
  /** When the view was last known to be current. */
  refreshedAt?: number | undefined;
  /** Whether the registry refuses a manifest that names a missing blob (R6). */
  strict?: boolean | undefined;
  /** When it was found that what is committed can be read back, in milliseconds since 1970. */
  readBackAt?: number | undefined;
  /** Whether the registry answers a range with the whole blob. */
  ignoresRange?: boolean | undefined;
  /** What is under the tag of nixcache-oci. */
  v1?: V1State | undefined;
}

export interface V1State {
  /** Digest of the manifest. */
  readonly manifest: Digest;
  /** The blob of the index; undefined when it is none that we can read. */
  readonly index?: BlobReference | undefined;
  /** Of an index that is in the view: the public key it was signed with, and when it was made, in milliseconds. */
  readonly keys?: readonly string[];
  readonly generated?: number | undefined;
}

export type NarLocation = { readonly parts: readonly Part[]; readonly narinfo?: string };

/** A layer of the view, and its file. */
export interface OpenLayer {
  readonly id: number;
  readonly file: LayerFile;
}

export class IndexReader implements Disposable {
  readonly #read: Database;
  #layers: readonly OpenLayer[] = [];
  #files: readonly LayerFile[] = [];
  readonly #attached: Statement<{ hash: string }, [string]>;
  readonly #former: Statement<{ rest: string }, [string]>;
  readonly #given: readonly PublicKey[];
  #keys: KeyRing | undefined;

  /** @param given keys by which a path's builds are told apart first; see `builds.ts` */
  constructor(read: Database, given: readonly PublicKey[] = []) {
    this.#read = read;
    this.#given = given;
    this.#attached = read.query("SELECT DISTINCT hash FROM attached WHERE path = ?");
    this.#former = read.query("SELECT rest FROM former WHERE file = ? LIMIT 1");
  }

  /** Shows these layers from now on, those that the connection has. They are released with the next ones. */
  show(layers: readonly OpenLayer[]): void {
    for (const file of this.#files) file.release();
    this.#layers = layers;
    this.#files = layers.map(({ file }) => file);
    this.#keys = undefined;
  }

  /** The keys by which a path's builds are told apart. */
  keys(): KeyRing {
    this.#keys ??= { given: this.#given, named: this.#namedKeys() };
    return this.#keys;
  }

  /** Those that live generations name, each once. */
  #namedKeys(): PublicKey[] {
    const query = `SELECT DISTINCT value AS key FROM generation, json_each(record, '$.keys') ORDER BY value`;
    const named = this.#read.query<{ key: unknown }, []>(query).all();
    return publicKeysAmong([...named.map(({ key }) => key), ...(this.state().v1?.keys ?? [])]);
  }

  /** The layers' files. Whoever goes on using one in a later turn of the event loop retains it. */
  get files(): readonly LayerFile[] {
    return this.#files;
  }

  /** The narinfo of a store hash, or undefined. */
  narinfo(hash: string): string | undefined {
    const key = hashKey(hash);
    let found: LayerFile | undefined;
    let rank = 0;
    for (const file of this.#files) {
      const { keys } = file.table;
      const first = firstRank(file.table, key);
      if (keys[first] !== key) continue;
      if (found !== undefined || keys[first + 1] === key) return this.line(hash)?.narinfo;
      found = file;
      rank = first;
    }
    // Nearly always it is the only line.
    return found === undefined ? undefined : (found.narinfoAt(rank, hash) ?? this.line(hash)?.narinfo);
  }

  /** The line that is shown for a store hash. */
  line(hash: string): EntryLine | undefined {
    return shownLine(this.linesOf(hash), () => this.keys());
  }

  /** Where a NAR's bytes are, by the file name in its URL; also for entries that left up to 35 days ago. */
  nar(file: string): NarLocation | undefined {
    for (const layer of this.#files) {
      for (const rank of layer.ranksOfFile(file)) {
        const line = layer.lineAt(rank);
        if (line?.file === file) return locationIn(line);
      }
    }
    const former = this.#former.get(file);
    return former ? { parts: filesOf(former.rest, file).parts } : this.#narOfPath(file);
  }

  /** By the name that nixcache-oci gives it, such as `<store hash>.nar.xz`: clients remember that for 30 days. */
  #narOfPath(file: string): NarLocation | undefined {
    if (file[STORE_HASH_LENGTH] !== ".") return undefined;
    const ending = file.slice(STORE_HASH_LENGTH);
    const lines = this.linesOf(file.slice(0, STORE_HASH_LENGTH));
    const having = lines.filter((line) => line.file.slice(FILE_HASH_DIGITS) === ending);
    const line = shownLine(having, () => this.keys());
    return line && locationIn(line);
  }

  /** The lines of all layers for a store hash. */
  linesOf(hash: string): EntryLine[] {
    return this.#files.flatMap((file) => file.linesOf(hash));
  }

  /**
   * When an entry was seen to have left the cache, in milliseconds since 1970; undefined where this index never had it,
   * or over 35 days ago. Looks through all that have left.
   */
  leftAt(hash: string): number | undefined {
    const query = "SELECT max(gone) AS gone FROM former WHERE hash = ?";
    return this.#read.query<{ gone: number | null }, [string]>(query).get(hash)?.gone ?? undefined;
  }

  /** Ids of the layers that have a line for a store hash. */
  layersOf(hash: string): number[] {
    return this.#layers.filter(({ file }) => file.rankOf(hash) !== undefined).map(({ id }) => id);
  }

  /** Where the listing of a store hash is, compressed with zstd. */
  listing(hash: string): Part | undefined {
    const line = this.line(hash);
    return line && filesOf(line.rest, hash).listing;
  }

  /** The file that entries have under this path. */
  attached(path: string): Attachment | undefined {
    const lines = this.#attached.all(path).flatMap(({ hash }) => this.line(hash) ?? []);
    const having = lines.flatMap((line) => {
      const file = filesOf(line.rest, line.storeHash).attached?.[path];
      return file === undefined ? [] : [{ line, file }];
    });
    if (having.length < 2) return having[0]?.file;
    return having.sort((a, b) => compareShown(b.line, a.line, this.keys()))[0]?.file;
  }

  /** A store hash whose narinfo names this derivation, by its base name. Looks through the whole index. */
  ofDeriver(baseName: string): string | undefined {
    // As it stands in a line, where newlines are escaped.
    const text = JSON.stringify(`\nDeriver: ${baseName}\n`).slice(1, -1);
    for (const file of this.#files) {
      const line = file.find(text);
      if (line !== undefined) return line.storeHash;
    }
    return undefined;
  }

  /** Number of store paths in the view. */
  count(): number {
    const [largest, ...others] = this.#files.toSorted((a, b) => b.paths - a.paths);
    if (largest === undefined) return 0;
    let count = largest.paths;
    const counted = [largest];
    for (const file of others) {
      for (const [rank, key] of file.table.keys.entries()) {
        if (!file.isFirst(rank)) continue;
        const mayBeThere = counted.some(({ table }) => table.keys[firstRank(table, key)] === key);
        const hash = mayBeThere ? file.hashAt(rank) : undefined;
        if (hash === undefined || !counted.some((other) => other.rankOf(hash) !== undefined)) count++;
      }
      counted.push(file);
    }
    return count;
  }

  /** The first store hashes from `hash` on, in their order. */
  hashesFrom(hash: string, limit: number): string[] {
    return mergeLayers(this.#files, hash).take(limit).map(hashOf).toArray();
  }

  layers(): LayerRow[] {
    return this.#read
      .query<LayerRow, []>(
        "SELECT id, digest, size, position, signatures FROM layer ORDER BY position IS NULL, position, id",
      )
      .all();
  }

  /** The layer that is the index of nixcache-oci, while no generation has adopted it. */
  v1Layer(): LayerRow | undefined {
    const index = this.state().v1?.index;
    return index && this.layers().find(({ digest }) => digest === index.digest);
  }

  /** The layers of segments that the root does not cover. */
  uncovered(): LayerRow[] {
    const v1 = this.v1Layer();
    return this.layers().filter(({ id, position }) => position === null && id !== v1?.id);
  }

  /** Digests of the layers with lines that are no entries. Reads all of them. */
  layersWithoutEntries(): Digest[] {
    const isWhole = ({ file }: OpenLayer) =>
      file.table.keys.every((_, rank) => file.lineAt(rank) !== undefined);
    return this.#layers.filter((layer) => !isWhole(layer)).map(({ file }) => file.digest);
  }

  /** Whether another layer than this one has the store hash, with this very NAR where one is given. */
  isElsewhere(layer: number, hash: string, file?: string): boolean {
    return this.#layers.some((other) => {
      if (other.id === layer) return false;
      if (file === undefined) return other.file.rankOf(hash) !== undefined;
      return other.file.linesOf(hash).some((line) => line.file === file);
    });
  }

  /** The generations of one layer, or of the whole view, each once, oldest first. */
  generations(layer?: number): Generation[] {
    const rows =
      layer === undefined
        ? this.#read
            .query<{ name: string; record: string }, []>(
              "SELECT name, record FROM generation GROUP BY name ORDER BY name",
            )
            .all()
        : this.#read
            .query<{ name: string; record: string }, [number]>(
              "SELECT name, record FROM generation WHERE layer = ? ORDER BY name",
            )
            .all(layer);
    return rows.map(({ name, record }) => ({ name, record: JSON.parse(record) as PublishRecord }));
  }

  /** The generations, and before them the index of nixcache-oci that is shown as it is, as if it were one. */
  publishes(): Generation[] {
    const layer = this.v1Layer();
    const { keys = [], generated = 0 } = this.state().v1 ?? {};
    if (layer === undefined) return this.generations();
    const record = v1Record(layer.digest, keys, new Date(generated).toISOString());
    return [
      { name: generationName(generated, digestHex(layer.digest).slice(0, 16)), record },
      ...this.generations(),
    ];
  }

  /** Ids of generations that are over. */
  dead(): Set<GenerationId> {
    const rows = this.#read.query<{ id: string }, []>("SELECT id FROM dead").all();
    return new Set(rows.map(({ id }) => id));
  }

  state(): ViewState {
    return (this.#stored("view") as ViewState | undefined) ?? {};
  }

  /** Generations that are listed and signed by none of the keys that the reader was given. */
  unsigned(): readonly GenerationName[] {
    return (this.#stored("unsigned") as GenerationName[] | undefined) ?? [];
  }

  #stored(name: "view" | "unsigned"): unknown {
    const query = "SELECT value FROM state WHERE name = ?";
    const row = this.#read.query<{ value: string }, [string]>(query).get(name);
    return row ? JSON.parse(row.value) : undefined;
  }

  /**
   * What `layers` have and `below` does not: of each path the lines that may be shown to anybody, unless the layers below
   * have the same. In the order of store hashes, and for one path in the order in which they were made.
   * @throws NoEntry for a line that is none: whether it was written so, or the disk has changed it, nobody can tell here
   */
  *linesAbove(layers: readonly number[], below: readonly number[]): Generator<EntryLine> {
    const files = (ids: readonly number[]) =>
      this.#layers.filter(({ id }) => ids.includes(id)).map(({ file }) => file);
    const lower = files(below);
    for (const places of mergeLayers(files(layers))) {
      const lines = everyLineAt(places);
      const hash = (lines[0] as EntryLine).storeHash;
      const known = lower.flatMap((file) => file.linesOf(hash));
      const added = lines.filter((line) => !known.some((other) => isSame(other, line)));
      if (added.length === 0) continue;
      const builds = buildsOf([...known, ...added]);
      yield* builds.filter((line) => !known.some((other) => isSame(other, line)));
    }
  }

  [Symbol.dispose](): void {
    this.show([]);
  }
}

function isSame(a: EntryLine, b: EntryLine): boolean {
  return a.narinfo === b.narinfo && a.rest === b.rest;
}

function locationIn({ rest, file, narinfo }: EntryLine): NarLocation {
  return { parts: filesOf(rest, file).parts, narinfo };
}

function hashOf([place]: readonly Place[]): string {
  if (place === undefined) throw new NixcacheError("internal", "a store hash without a line");
  return place.file.hashAt(place.rank);
}
