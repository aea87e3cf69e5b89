/**
 * What goes wrong, and when: the plans of the fault proxy. A plan says for each request what becomes of it; a
 * random one follows from its seed and the order of the requests.
 */
import { TestHost } from "./protocol.ts";

/** What becomes of one request. Numbers of bytes count from the start of the body. */
export type Fault =
  /** Answered without the registry, which never hears of it. */
  | { readonly kind: "answer"; readonly name: AnswerName }
  /** The token that came along is no good from now on: 401. Nothing happens without one, or to a new one. */
  | { readonly kind: "token-expired" }
  /** Of storage: the link is no good from now on: 403. */
  | { readonly kind: "link-expired" }
  /** RST before a byte of an answer; the registry never hears of it. */
  | { readonly kind: "reset" }
  /** RST after so many bytes of what the client sends. */
  | { readonly kind: "reset-upload"; readonly after: number }
  /** The registry does it, and the client gets RST instead of the answer. */
  | { readonly kind: "answer-lost" }
  /** RST after so many bytes of the answer's body. */
  | { readonly kind: "reset-answer"; readonly after: number }
  /** The answer stops after so many bytes of its body, and the connection stays open. */
  | { readonly kind: "stall"; readonly after: number }
  /** No answer at all, and the connection stays open; the registry never hears of it. */
  | { readonly kind: "silence" }
  /** The answer's body ends after so many bytes: early by its length, or (`clean`) without one. */
  | { readonly kind: "truncate"; readonly after: number; readonly clean: boolean }
  /** One bit of the answer's body is another. */
  | { readonly kind: "flip"; readonly at: number }
  /** The Range counts for nothing: 200 and the whole. */
  | { readonly kind: "range-ignored" }
  /** 206 with so many bytes further on than were asked for. */
  | { readonly kind: "range-shifted"; readonly by: number };

export type FaultKind = Exclude<Fault["kind"], "answer"> | AnswerName;

interface AnswerTemplate {
  readonly status: number;
  readonly code: string;
  readonly message: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** As GHCR, distribution and proxies before them answer. */
export const ANSWERS = {
  "secondary-limit": {
    status: 403,
    code: "DENIED",
    message: "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
  },
  "upload-unknown": { status: 404, code: "BLOB_UPLOAD_UNKNOWN", message: "blob upload unknown to registry" },
  "range-refused": { status: 416, code: "RANGE_INVALID", message: "invalid content range" },
  "rate-limit": {
    status: 429,
    code: "TOOMANYREQUESTS",
    message: "too many requests",
    headers: { "retry-after": "0" },
  },
  "rate-limit-message": {
    status: 429,
    code: "TOOMANYREQUESTS",
    message: "retry-after: 880.092µs, allowed: 44000/minute",
  },
  "internal-error": { status: 500, code: "UNKNOWN", message: "unknown error" },
  "bad-gateway": { status: 502, code: "", message: "<html>502 Bad Gateway</html>" },
  unavailable: { status: 503, code: "UNAVAILABLE", message: "service unavailable" },
} as const satisfies Record<string, AnswerTemplate>;

export type AnswerName = keyof typeof ANSWERS;

/** A request as a plan sees it. */
export interface PlannedRequest {
  readonly origin: "registry" | "storage" | "token";
  readonly method: string;
  /** Without the query, which may hold a signature; an upload's ends on its digest instead of its session. */
  readonly path: string;
  readonly range: string | null;
  /** Bytes that the client says it sends. */
  readonly size: number;
}

export type FaultPlan = (request: PlannedRequest) => Fault | undefined;

export const noFaults: FaultPlan = () => undefined;

/** Nothing that a body's digest must find out may befall a body without a digest, such as a list of tags. */
const HAS_DIGEST = /\/blobs\/sha256:|\/manifests\/|^\/sha256:/;

/** Which requests a fault can befall, and how often it is drawn. */
const KINDS: readonly {
  readonly kind: FaultKind;
  readonly weight: number;
  readonly fits: (request: PlannedRequest) => boolean;
}[] = [
  { kind: "secondary-limit", weight: 1, fits: ({ origin }) => origin === "registry" },
  { kind: "upload-unknown", weight: 2, fits: isUpload },
  { kind: "range-refused", weight: 2, fits: isUpload },
  { kind: "rate-limit", weight: 1, fits: always },
  { kind: "rate-limit-message", weight: 1, fits: always },
  { kind: "internal-error", weight: 1, fits: always },
  { kind: "bad-gateway", weight: 1, fits: always },
  { kind: "unavailable", weight: 1, fits: always },
  { kind: "token-expired", weight: 1, fits: ({ origin }) => origin === "registry" },
  { kind: "link-expired", weight: 2, fits: ({ origin }) => origin === "storage" },
  { kind: "reset", weight: 2, fits: always },
  { kind: "reset-upload", weight: 2, fits: ({ size }) => size > 0 },
  { kind: "answer-lost", weight: 2, fits: always },
  { kind: "reset-answer", weight: 2, fits: hasBody },
  { kind: "stall", weight: 0.3, fits: hasBody },
  { kind: "silence", weight: 0.3, fits: always },
  { kind: "truncate", weight: 2, fits: hasBody },
  { kind: "flip", weight: 2, fits: (request) => hasBody(request) && HAS_DIGEST.test(request.path) },
];

export interface RandomPlanOptions {
  readonly seed: number;
  /** Of a fault, for each request. */
  readonly probability: number;
  /** Default: all. */
  readonly kinds?: readonly FaultKind[];
  /**
   * The same request (method, path, range) fails at most so often in a row, so that whoever tries more often
   * must succeed, whatever the seed. Default: 4.
   */
  readonly inARow?: number;
}

export function randomPlan({ seed, probability, kinds, inARow = 4 }: RandomPlanOptions): FaultPlan {
  const { random } = new TestHost(0, seed);
  const failures = new Map<string, number>();
  const damaged = new Set<string>();
  return (request) => {
    const target = `${request.origin} ${request.method} ${request.path} ${request.range}`;
    const before = failures.get(target) ?? 0;
    const spared = random() >= probability || before >= inARow;
    const fitting = KINDS.filter(
      ({ kind, fits }) =>
        fits(request) && (kinds?.includes(kind) ?? true) && !(damaged.has(target) && isDamage(kind)),
    );
    let at = random() * fitting.reduce((sum, { weight }) => sum + weight, 0);
    const drawn = fitting.find(({ weight }) => {
      at -= weight;
      return at < 0;
    });
    const [position, coin] = [random(), random()];
    if (spared || drawn === undefined) {
      failures.delete(target);
      damaged.delete(target);
      return undefined;
    }
    failures.set(target, before + 1);
    // Wrong bytes are found out late and fetched again once: not twice in a row.
    if (isDamage(drawn.kind)) damaged.add(target);
    return faultOf(drawn.kind, request, position, coin);
  };
}

function faultOf(kind: FaultKind, request: PlannedRequest, position: number, coin: number): Fault {
  // Bodies of the tests are some hundred bytes to some hundred KiB.
  const place = Math.floor(10 ** (position * 5));
  switch (kind) {
    case "reset-upload":
      return { kind, after: Math.floor(position * request.size) };
    case "reset-answer":
    case "stall":
      return { kind, after: place };
    case "truncate":
      return { kind, after: place, clean: coin < 0.5 && HAS_DIGEST.test(request.path) };
    case "flip":
      return { kind, at: place };
    case "range-shifted":
      return { kind, by: place };
    case "token-expired":
    case "link-expired":
    case "range-ignored":
    case "reset":
    case "answer-lost":
    case "silence":
      return { kind };
    default:
      return { kind: "answer", name: kind };
  }
}

function isDamage(kind: FaultKind): boolean {
  return kind === "flip" || kind === "truncate";
}

function always(): boolean {
  return true;
}

function isUpload({ method, path }: PlannedRequest): boolean {
  return method === "PUT" && path.includes("/blobs/uploads/");
}

function hasBody({ method, origin }: PlannedRequest): boolean {
  return method === "GET" && origin !== "token";
}
