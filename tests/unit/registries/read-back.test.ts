/** The first publish to a cache reads back what it wrote: a registry that changes, drops or hides that is told at once. */
import { describe, expect, test } from "bun:test";
import { copyCache } from "../../../src/copy/copy.ts";
import type { NixcacheError } from "../../../src/errors.ts";
import { MemoryStore } from "../../support/memory-store.ts";
import { openAt, PATHS, publishFrom, publishOver, readOver } from "../../support/over-registry.ts";
import { commitNames, party, TestHost } from "../../support/protocol.ts";
import { type Fault, type RegistryDouble, withDouble } from "../../support/registry-double.ts";
import { DISTRIBUTION, GITEA } from "../../support/registry-ways.ts";

const NAMES = PATHS.map(({ name }) => name);
const created = (): Response => new Response(null, { status: 201 });

/** What is under a path, changed. */
function changing(path: RegExp, change: (bytes: Buffer) => string | Buffer): Fault {
  let inside = false;
  return async (seen, raw) => {
    if (inside || seen.method !== "GET" || !path.test(seen.path)) return undefined;
    inside = true;
    try {
      const answer = await fetch(raw.url, { headers: raw.headers, redirect: "follow" });
      if (!answer.ok) return undefined;
      const headers = new Headers(answer.headers);
      headers.delete("content-length");
      headers.delete("docker-content-digest");
      return new Response(change(Buffer.from(await answer.bytes())), { status: answer.status, headers });
    } finally {
      inside = false;
    }
  };
}

const WAYS: readonly [string, (double: RegistryDouble) => void, RegExp][] = [
  [
    "drops tags",
    ({ faults }) =>
      faults.push(({ method, path }) =>
        method === "PUT" && path.includes("/manifests/seg-") ? created() : undefined,
      ),
    /it took a manifest under the tag seg-\S+ and does not have it there$/,
  ],
  [
    "keeps tags under other names",
    ({ faults, tags }) =>
      faults.push(() => {
        for (const [tag, digest] of [...tags]) {
          if (!tag.startsWith("seg-")) continue;
          tags.delete(tag);
          tags.set(tag.toUpperCase(), digest);
        }
        return undefined;
      }),
    /and does not have it there, but as SEG-\S+$/,
  ],
  [
    "hides tags from its list",
    ({ faults }) =>
      faults.push(
        changing(/tags\/list/, (bytes) => {
          const { name, tags } = JSON.parse(bytes.toString());
          return JSON.stringify({ name, tags: tags.filter((tag: string) => !tag.startsWith("seg-")) });
        }),
      ),
    /its list of tags does not have seg-\S+, which it has by that name$/,
  ],
  [
    "writes manifests anew",
    ({ faults }) =>
      faults.push(
        changing(/manifests\/seg-/, (bytes) => JSON.stringify(JSON.parse(bytes.toString()), null, 1)),
      ),
    /under the tag seg-\S+ it has the manifest sha256:\w+, expected sha256:\w+$/,
  ],
  [
    "changes blobs",
    ({ faults }) => faults.push(changing(/blobs\/sha256/, (bytes) => Buffer.from(bytes.toReversed()))),
    /blob sha256:\w+ comes back as \d+ other bytes$/,
  ],
  [
    "loses blobs",
    ({ faults, blobs }) =>
      faults.push(({ path }) => {
        if (path.includes("tags/list") && blobs.size > 3) blobs.clear();
        return undefined;
      }),
    /it took the blob sha256:\w+ and does not have it$/,
  ],
  [
    "answers ranges wrongly",
    ({ faults }) =>
      faults.push(({ path, origin, headers }) =>
        origin === "storage" && headers.has("range") && path.includes("sha256")
          ? new Response("x".repeat(20), {
              status: 206,
              headers: { "content-range": `bytes 1-${(headers.get("range") ?? "").split("-")[1]}/9999` },
            })
          : undefined,
      ),
    /cannot be read back|are others when they are asked for alone$/,
  ],
];

describe("a registry that", () => {
  test.each(WAYS)(
    "%s is told at the first publish, with an exit status of its own",
    async (_, prepare, message) => {
      await withDouble(async (double) => {
        prepare(double);
        const error = await publishOver(double).then(
          () => undefined,
          (error: NixcacheError) => error,
        );
        expect(error).toMatchObject({ code: "unreadable", exitCode: 18 });
        expect(error?.message).toMatch(message);
        expect(error?.hint).toContain("Use another one");
      }, DISTRIBUTION);
    },
  );

  test("hides tags is told by a copy, too", () =>
    withDouble(async (double) => {
      const [, prepare, message] = WAYS[2] as (typeof WAYS)[0];
      prepare(double);
      const from = new MemoryStore();
      using source = party(from);
      await commitNames(source, ["a"]);
      const host = new TestHost();
      using machine = party(openAt(double, host), host);
      const copy = copyCache({ ...machine, source: from, progress: { planned() {}, moved() {} } });
      await expect(copy).rejects.toMatchObject({
        code: "unreadable",
        message: expect.stringMatching(message),
      });
    }, DISTRIBUTION));
});

test("a list that is a minute behind is waited for", () =>
  withDouble(async (double) => {
    const host = new TestHost();
    let committedAt = Number.POSITIVE_INFINITY;
    double.faults.push(({ method, path }) => {
      if (method === "PUT" && path.includes("/manifests/seg-")) committedAt = host.time;
      return undefined;
    });
    double.faults.push(
      changing(/tags\/list/, (bytes) => {
        const { name, tags } = JSON.parse(bytes.toString());
        const isLate = host.time < committedAt + 60_000;
        return JSON.stringify({
          name,
          tags: isLate ? tags.filter((tag: string) => !tag.startsWith("seg-")) : tags,
        });
      }),
    );
    using machine = party(openAt(double, host), host);
    const told: string[] = [];
    await publishFrom({ ...machine, info: (message: string) => told.push(message) } as never, PATHS);
    expect(machine.database.view.state().readBackAt).toBe(host.time);
    expect(host.time - committedAt).toBeLessThan(121_000);
    expect(told).toContain(`waiting for ${machine.store.name} to show what was published`);
  }, DISTRIBUTION));

test("what was found right is not looked at again, and a range that is ignored is remembered", () =>
  withDouble(async (double) => {
    const host = new TestHost();
    using machine = party(openAt(double, host), host);
    await publishFrom(machine, PATHS);
    expect(machine.database.view.state()).toMatchObject({ strict: true, ignoresRange: true });
    const before = double.count("GET", /blobs\/sha256/);
    host.time += 1000;
    await publishFrom(machine, [...PATHS, { name: "more" }]);
    expect(double.count("GET", /manifests\/seg-/)).toBeLessThanOrEqual(3);
    // What the refreshes of the second publish read, and nothing else.
    expect(double.count("GET", /blobs\/sha256/) - before).toBeLessThanOrEqual(4);
    expect(await readOver(double)).toEqual(NAMES);
  }, GITEA));
