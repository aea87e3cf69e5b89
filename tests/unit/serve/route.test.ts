import { expect, test } from "bun:test";
import fc from "fast-check";
import { route } from "../../../src/serve/route.ts";
import { propertyParameters } from "../../support/seed.ts";

const HASH = "0123456789abcdfghijklmnpqrsvwxyz";
const nar = (file: string) => ({ kind: "nar", file, path: `nar/${file}` }) as const;
const ID = "0123456789abcdef".repeat(2);

test.each([
  ["GET", "/nix-cache-info", { kind: "cache-info" }],
  ["HEAD", "/nix-cache-info?x=1", { kind: "cache-info" }],
  ["GET", `/${HASH}.narinfo`, { kind: "narinfo", storeHash: HASH }],
  ["GET", `/%30${HASH.slice(1)}.narinfo`, { kind: "narinfo", storeHash: HASH }],
  ["GET", "/nar/abc.nar.zst", nar("abc.nar.zst")],
  ["GET", "/nar/abc.nar?hash=x", nar("abc.nar")],
  ["GET", `/from/${ID}/a/b.nar?hash=x`, { kind: "from", id: ID, path: "a/b.nar?hash=x" }],
  ["GET", `/from/${ID.slice(1)}/a/b.nar`, { kind: "not-found" }],
  ["GET", `/from/${ID}/../b.nar`, { kind: "not-found" }],
  ["GET", "/public-key", { kind: "public-key" }],
  ["GET", "/_status", { kind: "status" }],
  ["POST", "/_refresh", { kind: "refresh" }],
  ["GET", "/_refresh", { kind: "method-not-allowed", allow: "POST" }],
  ["PUT", "/nar/abc.nar.zst", { kind: "method-not-allowed", allow: "GET, HEAD" }],
  ["DELETE", "/elsewhere", { kind: "not-found" }],
  ["GET", "/", { kind: "page", path: "", query: "" }],
  ["GET", "/_page/paths?search=x", { kind: "page", path: "_page/paths", query: "?search=x" }],
  ["GET", "/metrics", { kind: "metrics" }],
  ["GET", `/${HASH}.ls`, { kind: "listing", storeHash: HASH }],
  ["GET", "/log/abc.drv", { kind: "attached", path: "log/abc.drv" }],
  ["GET", "/debuginfo/abc", { kind: "attached", path: "debuginfo/abc" }],
  ["GET", "/realisations/sha256:ab%21out.doi", { kind: "attached", path: "realisations/sha256:ab!out.doi" }],
  ["GET", "/log/../abc", { kind: "not-found" }],
  ["GET", "/short.narinfo", { kind: "not-found" }],
  ["GET", `/${HASH.slice(1)}e.narinfo`, { kind: "not-found" }],
  ["GET", "/nar/../secret", { kind: "not-found" }],
  ["GET", "/nar/%2e%2e%2fsecret", { kind: "not-found" }],
  ["GET", "/nar/..", { kind: "not-found" }],
  ["GET", "/nar/a%00b", { kind: "bad-request" }],
  ["GET", "/%zz", { kind: "bad-request" }],
  ["GET", "/%ff", { kind: "not-found" }],
  ["GET", "//nar//abc.nar", nar("abc.nar")],
] as const)("%s %s", (method, path, expected) => {
  expect(route(method, path) as unknown).toEqual(expected);
  expect(route(method, `http://127.0.0.1:37515${path}`) as unknown).toEqual(expected);
});

test("any path has a route, and a NAR's file never leaves its folder", () => {
  fc.assert(
    fc.property(fc.constantFrom("GET", "HEAD", "POST"), fc.string({ unit: "binary" }), (method, text) => {
      for (const path of [text, `/nar/${text}`, `http://h/nar/${text}`]) {
        const found = route(method, path);
        if (found.kind === "nar") expect(found.file).not.toMatch(/[/\\\0]|^\./);
      }
    }),
    propertyParameters(),
  );
});
