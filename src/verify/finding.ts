/** What a verification found. */

/** Findings that make a cache not clean: something that a client may ask for cannot be had, or is not right. */
const HARMFUL = {
  "segment-unreadable": "a generation cannot be read",
  "segment-later": "a generation is of a format that only a later nixcache reads: update this one",
  "line-malformed": "a line of a generation is no entry",
  "key-malformed": "a publish record names a key that is none",
  "blob-missing": "a blob that entries name is not in the store",
  "blob-size": "a blob has another size than the entries say",
  "blob-corrupt": "a blob has other bytes than its digest says",
  "nar-corrupt": "a NAR is not what its narinfo says",
  "file-corrupt": "a listing or a build log is not what it should be",
  "reference-missing": "a reference is in no generation and no upstream",
  "reference-refused": "a path is signed, and what it refers to is not: publish that with the key as well",
  "signature-bad": "a signature is not good for its key",
  "signature-malformed": "a signature is none, so that clients who trust its key give up on the path",
} as const;

/** Findings that cost time or space and nothing else. */
const HARMLESS = {
  "generation-unsigned": "a generation is signed by none of the given keys, so it does not count",
  "root-behind": "a generation is not in the root, so readers read it directly",
  "not-adopted":
    "an index of nixcache-oci is served as it is, and not checked: nixcache gc, or the next publish, adopts it",
  "hold-orphan": "a hold has no generation: a publish that runs, or one that was killed",
} as const;

export type FindingKind = keyof typeof HARMFUL | keyof typeof HARMLESS;

export interface Finding {
  readonly kind: FindingKind;
  /** A tag, a digest or a store path. */
  readonly subject: string;
  readonly detail: string;
}

export function isHarmful(finding: Finding): boolean {
  return finding.kind in HARMFUL;
}

export function describeKind(kind: FindingKind): string {
  return { ...HARMFUL, ...HARMLESS }[kind];
}
