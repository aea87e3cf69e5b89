/** `WWW-Authenticate`, `Link` and `Content-Range`: headers that strangers write. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { contentRange } from "../../../src/oci/blob-requests.ts";
import { parseChallenges } from "../../../src/oci/challenge.ts";
import { parseNextLink } from "../../../src/oci/link.ts";

describe("WWW-Authenticate", () => {
  const parse = (header: string | null) =>
    parseChallenges(header).map(({ scheme, parameters }) => ({ scheme, ...Object.fromEntries(parameters) }));

  test.each<[string | null, Record<string, string>[]]>([
    [null, []],
    ["", []],
    [
      'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"',
      [
        {
          scheme: "bearer",
          realm: "https://ghcr.io/token",
          service: "ghcr.io",
          scope: "repository:user/image:pull",
        },
      ],
    ],
    ['Basic realm="basic-realm"', [{ scheme: "basic", realm: "basic-realm" }]],
    ["Basic", [{ scheme: "basic" }]],
    ['bearer REALM = "x" , Service=y', [{ scheme: "bearer", realm: "x", service: "y" }]],
    [
      'Basic realm="a", Bearer realm="b",scope="c,d"',
      [
        { scheme: "basic", realm: "a" },
        { scheme: "bearer", realm: "b", scope: "c,d" },
      ],
    ],
    ["Negotiate, Basic realm=x", [{ scheme: "negotiate" }, { scheme: "basic", realm: "x" }]],
    ["Negotiate abc+/def==, Basic realm=x", [{ scheme: "negotiate" }, { scheme: "basic", realm: "x" }]],
    ['Bearer realm="with \\"quotes\\" and \\\\"', [{ scheme: "bearer", realm: 'with "quotes" and \\' }]],
    ['Bearer realm="first",realm="second"', [{ scheme: "bearer", realm: "first" }]],
    ['Bearer realm="never closed', [{ scheme: "bearer" }]],
    ["Bearer realm=", [{ scheme: "bearer" }]],
    ["Bearer =x", [{ scheme: "bearer" }]],
    [",,, Bearer realm=x,,", [{ scheme: "bearer", realm: "x" }]],
    ['Bearer error="invalid_token"', [{ scheme: "bearer", error: "invalid_token" }]],
    ["{}", []],
  ])("%j", (header, expected) => {
    expect(parse(header) as object[]).toEqual(expected);
  });

  test("what is written by the rules is read back", () => {
    const name = fc.stringMatching(/^[a-z0-9_-]{1,10}$/);
    const challenge = fc.record({
      scheme: fc.stringMatching(/^[a-z]{1,10}$/),
      parameters: fc.array(fc.tuple(name, fc.string(), fc.boolean()), { maxLength: 5 }),
    });
    const write = (value: string, quoted: boolean) =>
      !quoted && /^[a-z0-9]+$/.test(value) ? value : `"${value.replace(/["\\]/g, "\\$&")}"`;
    fc.assert(
      fc.property(fc.array(challenge, { maxLength: 4 }), (challenges) => {
        const header = challenges
          .map(({ scheme, parameters }) =>
            `${scheme} ${parameters.map(([n, v, q]) => `${n}=${write(v, q)}`).join(", ")}`.trim(),
          )
          .join(", ");
        const expected = challenges.map(({ scheme, parameters }) => {
          const map = new Map<string, string>();
          for (const [n, v] of parameters) if (!map.has(n)) map.set(n, v);
          return { scheme, parameters: map };
        });
        expect(parseChallenges(header)).toEqual(expected);
      }),
    );
  });

  test("any text is read without an error, and quickly", () => {
    const header = fc.oneof(fc.string({ unit: "binary" }), fc.stringMatching(/^[Ba =,"\\;]{0,200}$/));
    fc.assert(
      fc.property(header, (text) => {
        for (const { scheme } of parseChallenges(text)) expect(scheme).toBe(scheme.toLowerCase());
      }),
    );
    for (const piece of ['a="', "a,", 'a b="c",', "\\", "=", " "])
      expect(() => parseChallenges(piece.repeat(100_000))).not.toThrow();
  });
});

describe("Link", () => {
  test.each<[string | null, string | undefined]>([
    [null, undefined],
    ["", undefined],
    ['</v2/a/tags/list?n=1&last=x>; rel="next"', "/v2/a/tags/list?n=1&last=x"],
    ["</x>; rel=next", "/x"],
    ["</x>;rel=NEXT", "/x"],
    ['</x> ; title="a, b; rel=prev" ; rel="next"', "/x"],
    ['</a>; rel="prev", </b>; rel="next"', "/b"],
    ['</a,b>; rel="first next"', "/a,b"],
    ['</a>; rel="prev"', undefined],
    ["</a>", undefined],
    ["</a", undefined],
    ["/a; rel=next", undefined],
    ["<>; rel=next", ""],
    ['</a>; title="never closed, </b>; rel=next', "/a"],
  ])("%j", (header, expected) => {
    expect(parseNextLink(header)).toBe(expected as never);
  });

  test("any text is read without an error", () => {
    const header = fc.oneof(fc.string({ unit: "binary" }), fc.stringMatching(/^[<>;=",relnxt \\]{0,100}$/));
    fc.assert(
      fc.property(header, (text) => {
        const found = parseNextLink(text);
        if (found !== undefined) expect(text).toContain(`<${found}>`);
      }),
    );
    expect(parseNextLink("<".repeat(1_000_000))).toBeUndefined();
  });
});

test.each<[string | undefined, ReturnType<typeof contentRange>]>([
  ["bytes 0-0/1234", { first: 0, last: 0, total: 1234 }],
  ["bytes 5-9/*", { first: 5, last: 9, total: undefined }],
  ["bytes */10", undefined],
  ["bytes 1-2", undefined],
  ["items 1-2/3", undefined],
  ["bytes 1-99999999999999999999/3", undefined],
  [undefined, undefined],
])("Content-Range %j", (text, expected) => {
  expect(contentRange({ headers: new Headers(text === undefined ? {} : { "content-range": text }) })).toEqual(
    expected,
  );
});
