import { expect, test } from "bun:test";
import { DIRECT_WEB } from "../../../src/network/web.ts";
import { openUpstream, type UpstreamRequest } from "../../../src/upstream/client.ts";
import { UpstreamFailure } from "../../../src/upstream/failure.ts";

/** An upstream that answers everything so. */
const upstreamOf = (answer: () => Response) =>
  openUpstream("https://cache.example.org", {
    web: { ...DIRECT_WEB, fetch: async () => answer() },
    timeoutMs: 1_000,
    stallMs: 1_000,
    userAgent: "test",
  });

test.each(["text/html", "text/html; charset=utf-8", "TEXT/HTML"])(
  "a page (%s) in the place of a NAR is a failure: Nix would unpack it, and end the build",
  async (type) => {
    const upstream = upstreamOf(
      () => new Response("<p>Please sign in</p>", { headers: { "content-type": type } }),
    );
    for (const method of ["GET", "HEAD"] as const) {
      const asked = upstream.request("nar/x.nar", { method });
      await expect(asked).rejects.toBeInstanceOf(UpstreamFailure);
    }
    await expect(upstream.request("nar/x.nar", { method: "GET" })).rejects.toThrow(
      "GET https://cache.example.org/nar/x.nar: got a page (text/html), expected a file",
    );
  },
);

test.each<[string | undefined, UpstreamRequest]>([
  ["application/x-nix-nar", { method: "GET" }],
  ["text/plain", { method: "GET" }],
  [undefined, { method: "GET" }],
  // A log may be anything.
  ["text/html", { method: "GET", encoded: true }],
])("what is called %s comes through", async (type, init) => {
  const upstream = upstreamOf(() => new Response("bytes", { headers: type ? { "content-type": type } : {} }));
  expect(await (await upstream.request("nar/x.nar", init))?.text()).toBe("bytes");
});
