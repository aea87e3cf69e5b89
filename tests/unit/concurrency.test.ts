import { describe, expect, test } from "bun:test";
import { bothConcurrently, kept, mapConcurrently, Semaphore } from "../../src/concurrency.ts";

describe("what is kept", () => {
  test("is called for once, also while it is under way", async () => {
    let calls = 0;
    const call = kept(async () => ++calls);
    expect(await Promise.all([call(), call()])).toEqual([1, 1]);
    expect(await call()).toBe(1);
  });

  test("is no failure: those who wait are told, and who comes later calls again", async () => {
    let calls = 0;
    const call = kept(async (name: string) => {
      if (++calls === 1) throw new Error(`${name} failed`);
      return name;
    });
    const outcomes = await Promise.allSettled([call("a"), call("b")]);
    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(await call("c")).toBe("c");
    expect(calls).toBe(2);
  });
});

describe("after a failure", () => {
  test("nothing more is begun, what is under way is awaited, and the first error is thrown", async () => {
    const done: number[] = [];
    const gate = Promise.withResolvers<void>();
    const run = mapConcurrently([0, 1, 2, 3], 2, async (item) => {
      if (item === 1) throw new Error("the first");
      await gate.promise;
      done.push(item);
    });
    run.catch(() => {});
    await Promise.resolve();
    gate.resolve();
    await expect(run).rejects.toThrow("the first");
    expect(done).toEqual([0]);
  });

  test.each([1, 2])(
    "of one of two with a limit of %d the other is awaited where it was begun",
    async (limit) => {
      let other = 0;
      const failing = bothConcurrently(
        limit,
        async () => {
          throw new Error("the first");
        },
        async () => ++other,
      );
      await expect(failing).rejects.toThrow("the first");
      expect(other).toBe(limit - 1);
    },
  );

  test("the next holder is let in", async () => {
    const semaphore = new Semaphore(1);
    const failing = semaphore.run(async () => {
      throw new Error("failed");
    });
    const next = semaphore.run(async () => "next");
    await expect(failing).rejects.toThrow("failed");
    expect(await next).toBe("next");
    expect(await semaphore.run(async () => "last")).toBe("last");
  });
});
