/**
 * Questions to the local index, over one connection: the union of the layers that the reader chose.
 */
import type { Database, Statement } from "bun:sqlite";
import { STORE_HASH_LENGTH } from "../nar/store-path.ts";
import { type Digest, digestHex } from "../oci/digest.ts";
import type { Attachment } from "./attachment.ts";
import { type EntryLine, filesOf } from "./entry.ts";
import type { Generation } from "./index-layer.ts";
import type { BlobReference } from "./manifests.ts";
import type { Part } from "./part.ts";
import { type PublishRecord, v1Record } from "./record.ts";
import { type GenerationId, generationName } from "./tags.ts";

/** The order in which one of several lines for a store path is shown: a total order on content. */
const SHOWN_FIRST = "added DESC, narinfo DESC, rest DESC";

export interface LayerRow {
  readonly id: number;
  readonly digest: Digest;
  /** Compressed bytes. */
  readonly size: number;
  /** Place in the root's stack from below; null for a segment's own layer. */
  readonly position: number | null;
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

export class IndexReader {
  readonly #read: Database;
  readonly #narinfo: Statement<{ narinfo: string }, [string]>;
  readonly #twoNarinfos: Statement<{ narinfo: string }, [string]>;
  readonly #line: Statement<EntryLine, [string]>;
  readonly #nar: Statement<{ narinfo: string; rest: string }, [string]>;
  readonly #attached: Statement<{ hash: string; rest: string }, [string]>;
  readonly #former: Statement<{ rest: string }, [string]>;
  readonly #narOf: Statement<{ narinfo: string; rest: string }, [string, string]>;

  /** Called before a look-up of which there are many. */
  readonly #beforeLookUp: () => void;

  constructor(read: Database, beforeLookUp: () => void = () => {}) {
    this.#read = read;
    this.#beforeLookUp = beforeLookUp;
    this.#narinfo = read.query(`SELECT narinfo FROM entry WHERE hash = ? ORDER BY ${SHOWN_FIRST} LIMIT 1`);
    this.#twoNarinfos = read.query("SELECT narinfo FROM entry WHERE hash = ? LIMIT 2");
    this.#line = read.query(
      `SELECT hash AS storeHash, file, narinfo, rest, added FROM entry WHERE hash = ? ORDER BY ${SHOWN_FIRST} LIMIT 1`,
    );
    this.#nar = read.query("SELECT narinfo, rest FROM entry WHERE file = ? LIMIT 1");
    this.#attached = read.query(
      `SELECT hash, rest FROM attached JOIN entry AS e USING (hash, layer) WHERE path = ? AND NOT EXISTS (
         SELECT 1 FROM entry AS other WHERE other.hash = e.hash
         AND (other.added, other.narinfo, other.rest) > (e.added, e.narinfo, e.rest)
       ) ORDER BY ${SHOWN_FIRST} LIMIT 1`,
    );
    this.#former = read.query("SELECT rest FROM former WHERE file = ? LIMIT 1");
    this.#narOf = read.query(
      `SELECT narinfo, rest FROM entry WHERE hash = ? AND substr(file, 53) = ? ORDER BY ${SHOWN_FIRST} LIMIT 1`,
    );
  }

  /** The narinfo of a store hash, or undefined. */
  narinfo(hash: string): string | undefined {
    this.#beforeLookUp();
    // Most hashes have one line, and without sorting it is found in a third of the time.
    const [only, another] = this.#twoNarinfos.all(hash);
    return another === undefined ? only?.narinfo : this.#narinfo.get(hash)?.narinfo;
  }

  line(hash: string): EntryLine | undefined {
    return this.#line.get(hash) ?? undefined;
  }

  /** Where a NAR's bytes are, by the file name in its URL; also for entries that left up to 35 days ago. */
  nar(file: string): NarLocation | undefined {
    const row = this.#nar.get(file);
    if (row) return { parts: filesOf(row.rest, file).parts, narinfo: row.narinfo };
    const former = this.#former.get(file);
    return former ? { parts: filesOf(former.rest, file).parts } : this.#narOfPath(file);
  }

  /** By the name that nixcache-oci gives it, such as `<store hash>.nar.xz`: clients remember that for 30 days. */
  #narOfPath(file: string): NarLocation | undefined {
    if (file[STORE_HASH_LENGTH] !== ".") return undefined;
    const row = this.#narOf.get(file.slice(0, STORE_HASH_LENGTH), file.slice(STORE_HASH_LENGTH));
    return row ? { parts: filesOf(row.rest, file).parts, narinfo: row.narinfo } : undefined;
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
    const query = "SELECT layer FROM entry WHERE hash = ?";
    return this.#read
      .query<{ layer: number }, [string]>(query)
      .all(hash)
      .map(({ layer }) => layer);
  }

  /** Where the listing of a store hash is, compressed with zstd. */
  listing(hash: string): Part | undefined {
    const line = this.#line.get(hash);
    return line ? filesOf(line.rest, hash).listing : undefined;
  }

  /** The file that entries have under this path. */
  attached(path: string): Attachment | undefined {
    const row = this.#attached.get(path);
    return row ? filesOf(row.rest, row.hash).attached?.[path] : undefined;
  }

  /** A store hash whose narinfo names this derivation, by its base name. Looks through the whole index. */
  ofDeriver(baseName: string): string | undefined {
    const row = this.#read
      .query<{ hash: string }, [string]>("SELECT hash FROM entry WHERE instr(narinfo, ?) > 0 LIMIT 1")
      .get(`\nDeriver: ${baseName}\n`);
    return row?.hash;
  }

  /** Number of store paths in the view. */
  count(): number {
    return this.#read.query<{ n: number }, []>("SELECT count(DISTINCT hash) AS n FROM entry").get()?.n ?? 0;
  }

  /** The first store hashes from `hash` on, in their order. */
  hashesFrom(hash: string, limit: number): string[] {
    return this.#read
      .query<{ hash: string }, [string, number]>(
        "SELECT DISTINCT hash FROM entry WHERE hash >= ? ORDER BY hash LIMIT ?",
      )
      .all(hash, limit)
      .map((row) => row.hash);
  }

  layers(): LayerRow[] {
    return this.#read
      .query<LayerRow, []>(
        "SELECT id, digest, size, position FROM layer ORDER BY position IS NULL, position, id",
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

  /** Whether another layer than this one has the store hash, with this very NAR where one is given. */
  isElsewhere(layer: number, hash: string, file?: string): boolean {
    const query = "SELECT 1 FROM entry WHERE hash = ?1 AND layer <> ?2 AND (?3 IS NULL OR file = ?3) LIMIT 1";
    return this.#read.query(query).get(hash, layer, file ?? null) !== null;
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
    const row = this.#read.query<{ value: string }, []>("SELECT value FROM state WHERE name = 'view'").get();
    return row ? (JSON.parse(row.value) as ViewState) : {};
  }

  /**
   * The lines that `layers` show and `below` does not: for each store hash the one shown first, unless a layer
   * below has the same line or one shown before it. In the order of store hashes.
   */
  *linesAbove(layers: readonly number[], below: readonly number[]): Generator<EntryLine> {
    const upper = layers.join(",");
    const lower = below.join(",");
    yield* this.#read
      .query<EntryLine, []>(
        `SELECT hash AS storeHash, file, narinfo, rest, added FROM (
           SELECT *, row_number() OVER (PARTITION BY hash ORDER BY ${SHOWN_FIRST}) AS place
           FROM entry WHERE layer IN (${upper})
         ) AS e WHERE place = 1 AND NOT EXISTS (
           SELECT 1 FROM entry b WHERE b.hash = e.hash AND b.layer IN (${lower})
           AND (b.added, b.narinfo, b.rest) >= (e.added, e.narinfo, e.rest)
         ) ORDER BY hash`,
      )
      .iterate();
  }
}
