/**
 * What registries answer where they differ: each question is a few requests on a repository of its own, and the answer
 * to the last ones is kept as it came, but for what differs from run to run. The answers of real registries are in
 * `tests/fixtures/registries/`, and doubles answer by them.
 */
import { join } from "node:path";
import { ROOT } from "../../scripts/process.ts";
import { digestOf } from "../../src/oci/digest.ts";
import {
  describe,
  EMPTY_CONFIG,
  EMPTY_CONFIG_BYTES,
  encodeManifest,
  MEDIA_TYPE_LAYER,
  MEDIA_TYPE_MANIFEST,
} from "../../src/oci/manifest.ts";
import type { RealRegistry } from "./real-registry.ts";
import type { RealRegistryOptions } from "./real-registry-kinds.ts";
import type { RegistryUnderTest } from "./registry-under-test.ts";

export interface RecordedAnswer {
  /** Method and path below the repository. */
  readonly request: string;
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Text; nothing for one that is empty. */
  readonly body?: string;
  /** The body broke off, as docker-registry's do after a 416. */
  readonly isCut?: true;
}

export interface RecordedRegistry {
  /** Where its answers were recorded from, such as `zot`. */
  readonly program: string;
  readonly version: string;
  /** By the names of questions. */
  readonly answers: Readonly<Record<string, readonly RecordedAnswer[]>>;
}

interface Ask {
  /** @param path below the repository; one that begins with "-" goes on with the repository's name */
  (method: string, path: string, init?: RequestInit): Promise<Response>;
  readonly repository: string;
}

interface Question {
  /** The settings of the registry that is asked. */
  readonly options?: RealRegistryOptions;
  /** What is done on a repository that has `BLOB`, the empty config, and `MANIFEST` under the tag `t`. */
  ask(ask: Ask): Promise<Response[]>;
}

const text = (value: string) => new TextEncoder().encode(value);

/** What a repository has before each question. */
const BLOB = text("0123456789");
const MANIFEST = encodeManifest({
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_MANIFEST,
  artifactType: "application/vnd.nixcache.segment.v1",
  config: EMPTY_CONFIG,
  layers: [describe(MEDIA_TYPE_LAYER, BLOB)],
});
const ABSENT = digestOf("nowhere");
const NAMES_ABSENT = encodeManifest({
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_MANIFEST,
  config: EMPTY_CONFIG,
  layers: [{ mediaType: MEDIA_TYPE_LAYER, digest: ABSENT, size: 1 }],
});
const CONFIG_ABSENT = encodeManifest({
  schemaVersion: 2,
  mediaType: MEDIA_TYPE_MANIFEST,
  config: { mediaType: EMPTY_CONFIG.mediaType, digest: ABSENT, size: 1 },
  layers: [describe(MEDIA_TYPE_LAYER, BLOB)],
});
const MIXED_CASE = "seg-20260101T000000Z-0123456789abcdef";

const manifestInit = (bytes: Uint8Array): RequestInit => ({
  body: bytes as Uint8Array<ArrayBuffer>,
  headers: { "content-type": MEDIA_TYPE_MANIFEST },
});

/** One after the other. */
async function each(...asks: (() => Promise<Response>)[]): Promise<Response[]> {
  const answers: Response[] = [];
  for (const ask of asks) answers.push(await ask());
  return answers;
}

const readOnly = { readOnly: true } as const;

const QUESTIONS = {
  "a manifest that names a missing layer": {
    ask: async (ask) => [await ask("PUT", `manifests/${digestOf(NAMES_ABSENT)}`, manifestInit(NAMES_ABSENT))],
  },
  "a manifest whose config is missing": {
    ask: async (ask) => [await ask("PUT", "manifests/x", manifestInit(CONFIG_ABSENT))],
  },
  "a blob of another digest": {
    ask: async (ask) => [await upload(ask, text("other"), digestOf(text("announced")))],
  },
  "what is absent": {
    ask: (ask) =>
      each(
        () => ask("HEAD", `blobs/${ABSENT}`),
        () => ask("GET", `blobs/${ABSENT}`),
        () => ask("HEAD", "manifests/absent"),
        () => ask("GET", "manifests/absent"),
        () => ask("DELETE", `manifests/${ABSENT}`),
      ),
  },
  "a repository that nobody has made": {
    ask: (ask) =>
      each(
        () => ask("GET", "-elsewhere/tags/list"),
        () => ask("GET", "-elsewhere/manifests/t"),
        () => ask("HEAD", `-elsewhere/blobs/${ABSENT}`),
        () => ask("DELETE", `-elsewhere/manifests/${ABSENT}`),
      ),
  },
  "a blob that another repository has": {
    ask: async (ask) => {
      const digest = digestOf(BLOB);
      const from = encodeURIComponent(ask.repository);
      const mount = { headers: { "content-length": "0" } };
      return each(
        () => ask("HEAD", `-elsewhere/blobs/${digest}`),
        () => ask("POST", `-elsewhere/blobs/uploads/?mount=${digest}&from=${from}`, mount),
        () => ask("HEAD", `-elsewhere/blobs/${digest}`),
      );
    },
  },
  "ranges of a blob": {
    ask: (ask) =>
      each(
        ...["bytes=2-5", "bytes=7-", "bytes=20-29"].map(
          (range) => () => ask("GET", `blobs/${digestOf(BLOB)}`, { headers: { range } }),
        ),
      ),
  },
  "a tag with capitals": {
    ask: (ask) =>
      each(
        () => ask("PUT", `manifests/${MIXED_CASE}`, manifestInit(MANIFEST)),
        () => ask("GET", "tags/list"),
        () => ask("HEAD", `manifests/${MIXED_CASE}`),
        () => ask("HEAD", `manifests/${MIXED_CASE.toLowerCase()}`),
      ),
  },
  "deleting a manifest with two tags": {
    ask: (ask) =>
      each(
        () => ask("PUT", "manifests/second", manifestInit(MANIFEST)),
        () => ask("DELETE", `manifests/${digestOf(MANIFEST)}`),
        () => ask("HEAD", "manifests/t"),
        () => ask("HEAD", "manifests/second"),
        () => ask("GET", "tags/list"),
      ),
  },
  "deleting a manifest by its tag": {
    ask: (ask) =>
      each(
        () => ask("PUT", "manifests/second", manifestInit(MANIFEST)),
        () => ask("DELETE", "manifests/second"),
        () => ask("GET", "tags/list"),
      ),
  },
  "deleting where that is off": {
    options: { deletion: false },
    ask: async (ask) => [await ask("DELETE", `manifests/${digestOf(MANIFEST)}`)],
  },
  "writing where that is off": {
    options: readOnly,
    ask: (ask) =>
      each(
        () => ask("POST", "blobs/uploads/", { headers: { "content-length": "0" } }),
        () => ask("PUT", "manifests/x", manifestInit(MANIFEST)),
        () => ask("DELETE", `manifests/${digestOf(MANIFEST)}`),
      ),
  },
  "more requests than are allowed in a second": {
    options: { rateLimit: 5 },
    ask: async (ask) => {
      // Whatever its second begins with, ten at once are too many.
      const answers = await Promise.all(Array.from({ length: 10 }, () => ask("GET", "tags/list")));
      const refused = answers.filter(({ status }) => status !== 200);
      return refused.slice(0, 1);
    },
  },
  "a manifest that has not changed": {
    ask: async (ask) => [
      await ask("GET", "manifests/t", { headers: { "if-none-match": `"${digestOf(MANIFEST)}"` } }),
    ],
  },
  "conditional writes": {
    ask: (ask) =>
      each(
        ...[{ "if-none-match": "*" }, { "if-match": `"${ABSENT}"` }].map((condition) => () => {
          const { body, headers } = manifestInit(MANIFEST);
          return ask("PUT", "manifests/t", {
            ...(body && { body }),
            headers: { ...headers, ...condition } as Record<string, string>,
          });
        }),
      ),
  },
  "a manifest": {
    ask: async (ask) => [await ask("GET", "manifests/t"), await ask("HEAD", "manifests/t")],
  },
  "an upload": {
    ask: async (ask) => {
      const started = await ask("POST", "blobs/uploads/", { headers: { "content-length": "0" } });
      return [started, await finish(ask, started, text("new"), digestOf(text("new")))];
    },
  },
  "a page of tags": {
    ask: (ask) =>
      each(
        () => ask("PUT", "manifests/a", manifestInit(MANIFEST)),
        () => ask("GET", "tags/list?n=1"),
      ),
  },
} satisfies Record<string, Question>;

type QuestionName = keyof typeof QUESTIONS;

export function recordedFile(name: string): string {
  return join(ROOT, "tests", "fixtures", "registries", `${name}.json`);
}

export async function readRecorded(name: string): Promise<RecordedRegistry> {
  return Bun.file(recordedFile(name)).json();
}

/** The answers of a real registry to every question, each on a repository of its own. */
export async function askAll(registry: RealRegistry): Promise<Record<string, readonly RecordedAnswer[]>> {
  const answers: Record<string, readonly RecordedAnswer[]> = {
    "a request without credentials": [await challengeOf(registry)],
  };
  let number = 0;
  for (const question of Object.keys(QUESTIONS) as QuestionName[]) {
    const repository = `owner/question-${++number}/nix-cache`;
    await prepareRepository(registry, repository);
    const { options }: Question = QUESTIONS[question];
    if (options !== undefined && !registry.has(options)) continue;
    if (options !== undefined) await registry.restart(options);
    answers[question] = await answersTo(question, registry, repository);
    if (options !== undefined) await registry.restart({});
  }
  return answers;
}

async function challengeOf({ host }: RegistryUnderTest): Promise<RecordedAnswer> {
  return recorded("GET", "", await fetch(`http://${host}/v2/`), { host, repository: "" });
}

/** The answers to one question, on a repository that was prepared. */
async function answersTo(
  name: QuestionName,
  registry: RegistryUnderTest,
  repository: string,
): Promise<RecordedAnswer[]> {
  const { ask: question }: Question = QUESTIONS[name];
  const requests = new Map<Response, [string, string]>();
  const ask: Ask = Object.assign(
    async (method: string, path: string, init?: RequestInit) => {
      const answer = await send(registry, repository, method, path, init);
      requests.set(answer, [method, path]);
      return answer;
    },
    { repository },
  );
  const answers: RecordedAnswer[] = [];
  for (const answer of await question(ask)) {
    const [method, path] = requests.get(answer) ?? ["", ""];
    answers.push(await recorded(method, path, answer, { host: registry.host, repository }));
  }
  return answers;
}

/** Gives a repository what every question is about. */
async function prepareRepository(registry: RegistryUnderTest, repository: string): Promise<void> {
  const ask: Ask = Object.assign(
    (method: string, path: string, init?: RequestInit) => send(registry, repository, method, path, init),
    { repository },
  );
  for (const bytes of [BLOB, EMPTY_CONFIG_BYTES]) {
    const answer = await upload(ask, bytes, digestOf(bytes));
    if (answer.status !== 201) throw new Error(`upload: ${answer.status} ${await answer.text()}`);
  }
  const answer = await ask("PUT", "manifests/t", manifestInit(MANIFEST));
  if (answer.status !== 201) throw new Error(`manifest: ${answer.status} ${await answer.text()}`);
}

async function send(
  { host, user }: RegistryUnderTest,
  repository: string,
  method: string,
  path: string,
  init: RequestInit = {},
): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("accept", MEDIA_TYPE_MANIFEST);
  if (user !== undefined) headers.set("authorization", `Basic ${btoa(`${user.name}:${user.password}`)}`);
  const below = path.startsWith("-") ? path : `/${path}`;
  const url = path.startsWith("http") ? path : `http://${host}/v2/${repository}${below}`;
  return fetch(url, { ...init, method, headers, redirect: "manual" });
}

async function upload(ask: Ask, bytes: Uint8Array, digest: string): Promise<Response> {
  const started = await ask("POST", "blobs/uploads/", { headers: { "content-length": "0" } });
  return finish(ask, started, bytes, digest);
}

async function finish(ask: Ask, started: Response, bytes: Uint8Array, digest: string): Promise<Response> {
  const url = new URL(started.headers.get("location") ?? "", started.url);
  url.search = `${url.search === "" ? "?" : `${url.search}&`}digest=${encodeURIComponent(digest)}`;
  return ask("PUT", url.href, { body: bytes as Uint8Array<ArrayBuffer> });
}

const MAX_BODY_CHARACTERS = 600;

/** Headers that say nothing of how a registry behaves. */
const IGNORED = [
  "date",
  "server",
  "vary",
  "connection",
  "keep-alive",
  "transfer-encoding",
  "docker-upload-uuid",
];

async function recorded(
  method: string,
  path: string,
  answer: Response,
  { host, repository }: { host: string; repository: string },
): Promise<RecordedAnswer> {
  const same = (value: string) =>
    value
      .replaceAll(host, "HOST")
      .replaceAll(/\b127\.0\.0\.1:\d+/g, "CLIENT")
      .replaceAll(repository || "\0", "OWNER/REPO")
      .replaceAll(encodeURIComponent(repository || "\0"), "OWNER%2FREPO")
      // Sessions of uploads, and what is signed in their addresses.
      .replaceAll(/(uploads?\/)[^?/"]+/g, "$1SESSION")
      .replaceAll(/([?&]_?state=)[^&"]+/g, "$1STATE")
      .replaceAll(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, "UUID");
  const headers: Record<string, string> = {};
  for (const [name, value] of answer.headers) if (!IGNORED.includes(name)) headers[name] = same(value);
  const request = `${method} ${same(path)}`.trim();
  const whole = await answer.text().catch(() => undefined);
  if (whole === undefined) return { request, status: answer.status, headers, isCut: true };
  // Of a page for people the beginning will do.
  const body = same(whole).slice(0, MAX_BODY_CHARACTERS);
  return { request, status: answer.status, headers, ...(body === "" ? {} : { body }) };
}
