import { describe, expect, test } from "bun:test";
import { watched } from "../../../src/upstream/body.ts";
import type { UpstreamFailure } from "../../../src/upstream/failure.ts";

/** A body of these pieces that then ends, fails, or stalls. */
function body(pieces: readonly string[], then: "end" | "fail" | "stall"): ReadableStream<Uint8Array> {
  const left = [...pieces];
  return new ReadableStream({
    pull(controller) {
      const piece = left.shift();
      if (piece !== undefined) return controller.enqueue(new TextEncoder().encode(piece));
      if (then === "end") controller.close();
      else if (then === "fail") controller.error(new Error("reset"));
      else return new Promise(() => {});
    },
  });
}

function watch(stream: ReadableStream<Uint8Array>, length?: number, signal?: AbortSignal) {
  const failures: UpstreamFailure[] = [];
  const onBroken = (failure: UpstreamFailure) => failures.push(failure);
  const what = "GET x";
  return { failures, stream: watched(stream, { what, stallMs: 20, length, signal, onBroken }) };
}

describe("a body that is watched", () => {
  test.each([undefined, 4, 3])("is as it was, with a length of %s", async (length) => {
    const { stream, failures } = watch(body(["ab", "cd"], "end"), length);
    expect([await new Response(stream).text(), failures]).toEqual(["abcd", []]);
  });

  test.each([
    ["ends too early", "end", 5, "GET x: got 4 bytes, expected 5", false],
    ["breaks off", "fail", undefined, "GET x: broke off after 4 bytes: reset", false],
    ["stalls", "stall", 4, "GET x: no byte in 20 ms", true],
  ] as const)("errors when it %s, and says so", async (_, then, length, message, timedOut) => {
    const { stream, failures } = watch(body(["ab", "cd"], then), length);
    await expect(new Response(stream).text()).rejects.toThrow(message);
    expect(failures.map((failure) => [failure.message, failure.timedOut])).toEqual([[message, timedOut]]);
  });

  test("is not broken when its reader has turned away, or pauses", async () => {
    const gone = watch(body([], "fail"), undefined, AbortSignal.abort());
    await expect(new Response(gone.stream).text()).rejects.toThrow("broke off");
    const paused = watch(body(["ab", "cd"], "end"));
    const reader = paused.stream.getReader();
    await reader.read();
    // What is tested is time itself: longer than it may stall.
    await Bun.sleep(50);
    expect((await reader.read()).value).toEqual(new TextEncoder().encode("cd"));
    expect([gone.failures, paused.failures]).toEqual([[], []]);
  });
});
