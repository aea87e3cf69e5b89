/** Which uploads are accepted, and what becomes of those that are not. */
import { describe, expect, spyOn, test } from "bun:test";
import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { NixcacheError } from "../../../src/errors.ts";
import type { Host } from "../../../src/host.ts";
import { encodeBase32 } from "../../../src/nar/base32.ts";
import { formatNarInfo, type NarInfo, parseNarInfo } from "../../../src/nar/narinfo.ts";
import { verifyNarInfo } from "../../../src/nar/signature.ts";
import { generateSecretKey, KEY_SIZE, publicKeyOf } from "../../../src/nar/signing-key.ts";
import { digestOf } from "../../../src/oci/digest.ts";
import { readNarFile } from "../../../src/protocol/nar-file.ts";
import { refresh } from "../../../src/protocol/refresh.ts";
import { createGuard } from "../../../src/serve/guard.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { commitPaths, party } from "../../support/protocol.ts";
import { receiving, type UploadedPath, uploadedPath } from "../../support/receive.ts";

const path = uploadedPath("a");

const baseNameOf = ({ info }: UploadedPath) => info.storePath.slice("/nix/store/".length);

/** Nothing that was not accepted is left on disk. */
function filesIn(folder: string): string[] {
  return ["blobs", "drafts"].flatMap((name) => readdirSync(join(folder, name)));
}

describe("a path that is uploaded as Nix does", () => {
  test.each(["none", "gzip", "zstd", "br", "xz"])("with %s is there at once", async (compression) => {
    using server = receiving(new MemoryStore());
    const sent = uploadedPath("a", { compression, size: 100_000 });
    expect(await server.upload(sent)).toMatchObject({ status: 201, text: "" });
    const narinfo = server.writer.view.narinfo(sent.hash);
    expect(narinfo).toBe(formatNarInfo(sent.info));
    const located = server.writer.view.nar(sent.file);
    const chunks = await Array.fromAsync(
      readNarFile({ parts: located?.parts ?? [], fileHash: sent.info.fileHash }, server.writer.store),
    );
    expect(Buffer.concat(chunks).equals(sent.bytes)).toBe(true);
    expect(server.writer.keepsNar(sent.file)).toBe(true);
  });

  test("again changes nothing", async () => {
    using server = receiving(new MemoryStore());
    expect((await server.upload(path)).status).toBe(201);
    expect((await server.upload(path)).status).toBe(200);
    expect(server.journal.totals().paths).toBe(1);
  });

  test("is signed beside the signatures that it has", async () => {
    const key = generateSecretKey("k-1", new Uint8Array(KEY_SIZE).fill(7));
    using server = receiving(new MemoryStore(), { key });
    const other = `other-1:${Buffer.alloc(64).toString("base64")}`;
    const info = { ...path.info, sigs: [other] };
    expect((await server.upload({ ...path, info })).status).toBe(201);
    const stored = parseNarInfo(server.writer.view.narinfo(path.hash) ?? "");
    expect(stored.sigs).toHaveLength(2);
    expect(stored.sigs).toContain(other);
    expect(verifyNarInfo(stored, [publicKeyOf(key)])).toBe(true);
  });

  test("without FileHash and FileSize gets them", async () => {
    using server = receiving(new MemoryStore());
    const { fileHash: _, fileSize: __, ...info } = path.info;
    expect((await server.upload({ ...path, info })).status).toBe(201);
    expect(server.writer.view.narinfo(path.hash)).toBe(formatNarInfo(path.info));
  });

  test("gathers the signatures of later uploads", async () => {
    using server = receiving(new MemoryStore());
    const signed = (name: string) => ({
      ...path.info,
      sigs: [`${name}:${Buffer.alloc(64).toString("base64")}`],
    });
    await server.upload({ ...path, info: signed("one") });
    expect((await server.put(`${path.hash}.narinfo`, formatNarInfo(signed("two")))).status).toBe(201);
    expect(parseNarInfo(server.writer.view.narinfo(path.hash) ?? "").sigs).toHaveLength(2);
  });

  describe("when there is another build of it", () => {
    const rebuilt = uploadedPath("a", { content: "rebuilt" });
    const key = generateSecretKey("k-1", new Uint8Array(KEY_SIZE).fill(7));
    const unknown = `k-1:${Buffer.alloc(64).toString("base64")}`;
    const withSigs = (sent: UploadedPath, sigs: string[]) => ({ ...sent, info: { ...sent.info, sigs } });

    test.each([false, true])(
      "that is signed, is refused, whether that is committed (%p) or not",
      async (committed) => {
        using server = receiving(new MemoryStore(), { key });
        await server.upload(path);
        if (committed) await server.commit();
        const before =
          server.writer.view.narinfo(path.hash) ?? server.machine.database.view.narinfo(path.hash);
        expect(await server.upload(rebuilt)).toMatchObject({
          status: 409,
          text: expect.stringContaining("another build of it that is signed"),
        });
        expect(server.writer.view.narinfo(path.hash) ?? server.machine.database.view.narinfo(path.hash)).toBe(
          before,
        );
      },
    );

    test("that a key has signed which nobody knows here, is refused", async () => {
      using server = receiving(new MemoryStore());
      await server.upload(withSigs(path, [unknown]));
      expect((await server.upload(rebuilt)).status).toBe(409);
    });

    test("that differs in its references alone and is signed, is refused", async () => {
      using server = receiving(new MemoryStore(), { key });
      await server.upload(path);
      const info = { ...path.info, references: [baseNameOf(path)] };
      expect((await server.upload({ ...path, info })).status).toBe(409);
    });

    test("replaces one whose signature is wrong, and gets none of its signatures", async () => {
      const machine = party(new MemoryStore(), undefined, [publicKeyOf(key)]);
      using server = receiving(machine.store as MemoryStore, { machine });
      await server.upload(withSigs(path, [unknown]));
      expect((await server.upload(rebuilt)).status).toBe(201);
      expect(server.writer.view.narinfo(path.hash)).toBe(formatNarInfo(rebuilt.info));
    });

    test("replaces one without signatures, also once that is committed", async () => {
      using server = receiving(new MemoryStore(), { key });
      await commitPaths(server.machine, { a: { content: "of a stranger" } });
      await refresh(server.machine, { list: true });
      expect(server.machine.database.view.narinfo(path.hash)).toBeDefined();
      expect((await server.upload(rebuilt)).status).toBe(201);
      const { sigs, narHash } = parseNarInfo(server.writer.view.narinfo(path.hash) ?? "");
      expect({ narHash, sigs: sigs.length }).toEqual({ narHash: rebuilt.info.narHash, sigs: 1 });
      await server.commit();
      expect(parseNarInfo(server.machine.database.view.narinfo(path.hash) ?? "")).toMatchObject({
        narHash,
        sigs,
      });
    });
  });

  test("may refer to itself, to the journal, to the index and to an upstream", async () => {
    const store = new MemoryStore();
    using server = receiving(store, { upstream: ["upstream"] });
    await server.upload(uploadedPath("committed"));
    await server.commit();
    await server.upload(uploadedPath("received"));
    const references = ["self", "received", "committed", "upstream"];
    expect(await server.upload(uploadedPath("self", { references }))).toMatchObject({ status: 201 });
  });

  test.each<[string, (text: string) => Uint8Array]>([
    ["gzip", (text) => Bun.gzipSync(text)],
    ["zstd", (text) => Bun.zstdCompressSync(text)],
    ["br", (text) => brotliCompressSync(text)],
    ["identity", (text) => Buffer.from(text)],
  ])("may have a narinfo and a listing in the coding %s", async (coding, encode) => {
    using server = receiving(new MemoryStore());
    await server.put(`nar/${path.file}`, path.bytes);
    const headers = { "content-encoding": coding };
    const narinfo = await server.put(`${path.hash}.narinfo`, encode(formatNarInfo(path.info)), headers);
    expect(narinfo).toMatchObject({ status: 201 });
    const listing = `{"version":1,"root":"${"x".repeat(3_000_000)}"}`;
    expect(await server.put(`${path.hash}.ls`, encode(listing), headers)).toMatchObject({ status: 201 });
    const part = server.writer.view.listing(path.hash);
    const packed = part && (await server.writer.store.readBlob(part.blob));
    expect(Bun.zstdDecompressSync(await new Response(packed).bytes()).toString()).toBe(listing);
  });
});

describe("refused, with nothing left behind", () => {
  const withInfo = (change: Partial<NarInfo>): UploadedPath => ({
    ...path,
    info: { ...path.info, ...change },
  });
  const zstd = uploadedPath("z", { compression: "zstd", size: 50_000 });
  const bomb = Bun.zstdCompressSync(Buffer.alloc(64 * 1024 * 1024));
  const bombHash = encodeBase32(new Bun.CryptoHasher("sha256").update(bomb).digest() as Uint8Array);
  const bombInfo = { url: `nar/${bombHash}.nar.zst`, fileHash: `sha256:${bombHash}`, fileSize: bomb.length };

  test.each<[string, UploadedPath, RegExp]>([
    ["another FileHash", withInfo({ fileHash: `sha256:${"0".repeat(52)}` }), /FileHash: sha256:000/],
    ["another FileSize", withInfo({ fileSize: 1 }), /FileSize: 1, the file has 500/],
    ["another NarHash", withInfo({ narHash: `sha256:${"0".repeat(52)}` }), /NarHash says sha256:000/],
    ["a NarSize too small", withInfo({ narSize: 499 }), /longer than NarSize: 499/],
    ["a NarSize too large", withInfo({ narSize: 501 }), /has 500 bytes, NarSize says 501/],
    ["another compression", withInfo({ compression: "zstd" }), /cannot be unpacked as zstd/],
    ["a compression of few", withInfo({ compression: "lzma" }), /Compression: lzma/],
    ["a URL elsewhere", withInfo({ url: `x/${path.file}` }), /expected nar\/<file>/],
    ["a NAR that did not come", withInfo({ url: `nar/${"0".repeat(52)}.nar` }), /must be uploaded before/],
    ["a reference that is nowhere", uploadedPath("b", { references: ["gone"] }), /refers to .*-gone, which/],
    ["the narinfo of another path", { ...path, hash: "0".repeat(32) }, /got the narinfo of/],
    ["a name that is not the hash", { ...path, file: `${"0".repeat(52)}.nar` }, /expected that of the name/],
    ["a name of another shape", { ...path, file: "a.nar" }, /expected <its SHA-256/],
    [
      "a NAR that unpacks to more",
      { ...zstd, file: `${bombHash}.nar.zst`, bytes: bomb, info: { ...zstd.info, ...bombInfo } },
      /longer than NarSize: 50000/,
    ],
  ])("%s", async (_, sent, reason) => {
    using server = receiving(new MemoryStore());
    const answer = await server.upload(sent);
    expect(answer.status).toBe(400);
    expect(answer.text).toMatch(reason);
    expect(answer.text.length).toBeLessThan(1024);
    expect(server.journal.totals().paths).toBe(0);
    expect(readdirSync(join(server.folder, "drafts"))).toEqual([]);
  });

  test.each<[string, string, string | Uint8Array, Record<string, string>, number]>([
    ["a body that is too short", `nar/${path.file}`, path.bytes, { "content-length": "501" }, 400],
    ["no Content-Length", `nar/${path.file}`, path.bytes, { "content-length": "" }, 411],
    ["an encoded NAR", `nar/${path.file}`, path.bytes, { "content-encoding": "gzip" }, 415],
    ["an unknown coding", `${path.hash}.narinfo`, "x", { "content-encoding": "compress" }, 415],
    ["a coding that it has not", `${path.hash}.narinfo`, "x", { "content-encoding": "zstd" }, 400],
    [
      "a truncated coding",
      `${path.hash}.ls`,
      Bun.gzipSync("x".repeat(999)).subarray(0, 20),
      { "content-encoding": "gzip" },
      400,
    ],
    ["a narinfo that is none", `${path.hash}.narinfo`, "hello", {}, 400],
    ["a narinfo that is not UTF-8", `${path.hash}.narinfo`, new Uint8Array([0xff]), {}, 400],
    ["a huge narinfo", `${path.hash}.narinfo`, "x".repeat(1024 * 1024 + 1), {}, 413],
    [
      "a narinfo that unpacks to more",
      `${path.hash}.narinfo`,
      Bun.gzipSync(Buffer.alloc(9_000_000)),
      { "content-encoding": "gzip" },
      413,
    ],
    ["a log of nobody's", `log/${"0".repeat(32)}-x.drv`, "log", {}, 400],
    [
      "a realisation of nothing",
      "realisations/sha256:0!out.doi",
      `{"outPath":"${"0".repeat(32)}-x"}`,
      {},
      400,
    ],
    ["a realisation that is none", "realisations/sha256:0!out.doi", "null", {}, 400],
    ["debuginfo without its archive", "debuginfo/0123", '{"member":"x"}', {}, 400],
    ["a path of nothing", "hello", "x", {}, 404],
    ["a page", "", "x", {}, 404],
    ["another site's page", `nar/${path.file}`, path.bytes, { "sec-fetch-site": "cross-site" }, 403],
    ["another site's origin", `nar/${path.file}`, path.bytes, { origin: "https://evil.example" }, 403],
    ["another host's name", `nar/${path.file}`, path.bytes, { host: "evil.example" }, 403],
  ])("%s", async (_, target, body, headers, status) => {
    using server = receiving(new MemoryStore());
    const answer = await server.put(target, body, headers);
    expect(answer.status).toBe(status);
    expect(answer.text.length).toBeGreaterThan(10);
    expect(answer.text.length).toBeLessThan(1024);
    expect(filesIn(server.folder)).toEqual([]);
    expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
  });

  test("a signature that is none, as clients give up on its path", async () => {
    using server = receiving(new MemoryStore());
    const answer = await server.upload(withInfo({ sigs: ["cache.nixos.org-1:AAAA"] }));
    expect(answer).toMatchObject({ status: 400, text: expect.stringContaining("64 bytes") });
  });

  test("what would not fit into the index with what is there, since it would hold up all else", async () => {
    using server = receiving(new MemoryStore());
    const signature = Buffer.alloc(64).toString("base64");
    const sigs = (of: string, count: number) =>
      Array.from({ length: count }, (_, at) => `${of}${at}:${signature}`);
    expect((await server.upload(withInfo({ sigs: sigs("a", 8_000) }))).status).toBe(201);
    expect((await server.upload(withInfo({ sigs: sigs("b", 8_000) }))).status).toBe(413);
    const target = "realisations/sha256:0!out.doi";
    const realisation = { id: "sha256:0!out", outPath: baseNameOf(path), dependentRealisations: {} };
    const statuses = [];
    for (const of of ["a", "b"]) {
      const body = JSON.stringify({ ...realisation, signatures: sigs(of, 400) });
      statuses.push((await server.put(target, body)).status);
    }
    const doubled = JSON.stringify({ outPath: baseNameOf(path), x: "\\".repeat(20_000) });
    statuses.push((await server.put("build-trace-v2/x.drv/out.doi", doubled)).status);
    expect(statuses).toEqual([201, 413, 413]);
    expect((await server.upload(uploadedPath("b"))).status).toBe(201);
  });

  test("what the journal has no room for", async () => {
    using server = receiving(new MemoryStore(), { journalBytes: 1_200 });
    expect((await server.upload(path)).status).toBe(201);
    const answer = await server.upload(uploadedPath("b"));
    expect(answer.status).toBe(413);
    expect(answer.text).toContain("no room");
  });
});

describe("a body that", () => {
  const after = (end: (controller: ReadableStreamDefaultController<Uint8Array>) => void) => {
    let sent = false;
    return new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent) return end(controller);
        controller.enqueue(path.bytes.slice(0, 100));
        sent = true;
      },
    });
  };
  const never = { sleep: () => new Promise<void>(() => {}) };
  const soon = { sleep: () => new Promise<void>((resolve) => setImmediate(resolve)) };

  test.each<[string, ReadableStream<Uint8Array>, Pick<Host, "sleep">]>([
    ["ends early", after((controller) => controller.close()), never],
    ["breaks off", after((controller) => controller.error(new Error("connection closed"))), never],
    ["stalls", after(() => new Promise(() => {}) as never), soon],
  ])("%s leaves nothing", async (_, body, host) => {
    using server = receiving(new MemoryStore(), { host });
    const answer = await server.send(`nar/${path.file}`, body, path.bytes.length);
    expect(answer.status).toBe(400);
    expect(answer.text).toMatch(/of 500 bytes|expected 500/);
    expect(filesIn(server.folder)).toEqual([]);
    // Its room is free again.
    expect((await server.upload(path)).status).toBe(201);
  });
});

test("a realisation is refused under another's name", async () => {
  using server = receiving(new MemoryStore());
  await server.upload(path);
  const outPath = path.info.storePath.slice("/nix/store/".length);
  const body = JSON.stringify({ dependentRealisations: {}, id: "sha256:0!out", outPath, signatures: [] });
  expect((await server.put("realisations/sha256:1!out.doi", body)).status).toBe(400);
  expect((await server.put("realisations/sha256:0!out.doi", body)).status).toBe(201);
  expect((await server.put("realisations/sha256:0!out.doi", body)).status).toBe(200);
});

describe("what is not the client's fault", () => {
  test("such as a damaged index is no 400, and told here as well", async () => {
    using server = receiving(new MemoryStore());
    expect((await server.put(`nar/${path.file}`, path.bytes)).status).toBe(201);
    const { view } = server.machine.database;
    using _ = spyOn(view, "narinfo").mockImplementation(() => {
      throw new NixcacheError("corrupt", "the index is damaged");
    });
    const { status, text } = await server.put(`${path.hash}.narinfo`, formatNarInfo(path.info));
    expect([status, text]).toEqual([403, "an upload could not be stored: the index is damaged\n"]);
    expect(server.logged).toEqual(["an upload could not be stored: the index is damaged"]);
    // And what is the client's fault is not told here.
    expect((await server.put(`${path.hash}.narinfo`, "StorePath: nowhere\n")).status).toBe(400);
    expect(server.logged).toHaveLength(1);
  });

  test("such as a file that cannot get its place leaves none in the making", async () => {
    using server = receiving(new MemoryStore());
    for (const [target, body] of [
      [`nar/${path.file}`, path.bytes],
      [`${path.hash}.ls`, Bun.zstdCompressSync("{}")],
    ] as const) {
      const sent = digestOf(target.startsWith("nar/") ? body : Bun.zstdCompressSync(body));
      mkdirSync(join(server.journal.blobFile(sent), "in-the-way"), { recursive: true });
      expect((await server.put(target, body)).status).toBe(403);
      expect(readdirSync(join(server.folder, "drafts"))).toEqual([]);
      expect(server.journal.totals().bytes).toBe(0);
    }
  });
});

test("nix-cache-info is accepted and changes nothing", async () => {
  using server = receiving(new MemoryStore());
  expect((await server.put("nix-cache-info", "StoreDir: /nix/store\n")).status).toBe(200);
  expect(server.journal.totals()).toEqual({ paths: 0, bytes: 0 });
});

describe("S2: without a token only who is on this machine may write", () => {
  test.each<[string, Record<string, string>]>([
    ["X-Forwarded-For", { "X-Forwarded-For": "192.0.2.7" }],
    ["X-Forwarded-Proto alone", { "x-forwarded-proto": "https" }],
    ["Forwarded", { Forwarded: "for=127.0.0.1" }],
    ["X-Real-IP", { "X-Real-IP": "127.0.0.1" }],
    ["Via", { Via: "1.1 proxy" }],
    ["a header of Cloudflare", { "CF-Connecting-IP": "192.0.2.7" }],
    ["an empty one", { "X-Forwarded-For": "" }],
  ])("not what a proxy marks with %s", async (_, headers) => {
    using server = receiving(new MemoryStore());
    const answer = await server.put("nix-cache-info", "StoreDir: /nix/store\n", headers);
    expect(answer.status).toBe(401);
    expect(answer.text).toContain("came through a proxy");
    expect(answer.text).toContain("--write-token-file");
  });

  test.each(["127.0.0.1:37515", "localhost", "[::1]:8080", "cache.localhost"])(
    "what is sent to %s",
    async (host) => {
      using server = receiving(new MemoryStore());
      expect((await server.put("nix-cache-info", "StoreDir: /nix/store\n", { host })).status).toBe(200);
    },
  );

  test.each(["cache.example.org", "cache.example.org:443", "nas"])("not what is sent to %s", async (host) => {
    const guard = createGuard({ hostname: "127.0.0.1", allowHosts: ["cache.example.org", "nas"] });
    using server = receiving(new MemoryStore(), { guard });
    const answer = await server.put("nix-cache-info", "StoreDir: /nix/store\n", { host });
    expect([answer.status, answer.text]).toEqual([401, expect.stringContaining("its Host is another")]);
  });

  test("with the token all of these may", async () => {
    using server = receiving(new MemoryStore(), { token: "token-123" });
    const headers = { "X-Forwarded-For": "192.0.2.7", authorization: "Bearer token-123" };
    expect((await server.put("nix-cache-info", "StoreDir: /nix/store\n", headers)).status).toBe(200);
  });
});

describe("the token", () => {
  const basic = (text: string) => `Basic ${Buffer.from(text).toString("base64")}`;
  test.each<[string, string | undefined, number]>([
    ["none", undefined, 401],
    ["another", "Bearer tokem-123", 401],
    ["a longer one", "Bearer token-1234", 401],
    ["an empty one", "Bearer ", 401],
    ["in the user's place", basic("token-123:"), 401],
    ["of another scheme", "Digest token-123", 401],
    ["as Bearer", "Bearer token-123", 201],
    ["as bearer", "bearer token-123", 201],
    ["as a password", basic("anybody:token-123"), 201],
    ["as a password of nobody", basic(":token-123"), 201],
  ])("%s", async (_, authorization, status) => {
    using server = receiving(new MemoryStore(), { token: "token-123" });
    const answer = await server.put(`nar/${path.file}`, path.bytes, authorization ? { authorization } : {});
    expect(answer.status).toBe(status);
    if (status === 401) expect(answer.headers.get("www-authenticate")).toStartWith("Basic ");
    expect(answer.text).not.toContain("token-123");
  });
});

test("two clients that upload the same at once both succeed", async () => {
  using server = receiving(new MemoryStore());
  const shared = uploadedPath("shared", { compression: "gzip", size: 3_000_000 });
  const answers = await Promise.all([server.upload(shared), server.upload(shared), server.upload(shared)]);
  expect(answers.every(({ status }) => status === 200 || status === 201)).toBe(true);
  expect(server.journal.totals().paths).toBe(1);
  expect(filesIn(server.folder)).toHaveLength(1);
});
