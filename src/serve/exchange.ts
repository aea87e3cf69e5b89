/** One request and what becomes of it, for the counters and the access log. */
import type { HitSource, KindTraffic } from "./traffic.ts";

export class Exchange {
  /** Where the answer came from; set by whoever finds it. */
  source: HitSource = "none";
  status = 0;
  /** Of the body, sent so far. */
  bytes = 0;
  /** Whether the body was broken off, by us or by the client. */
  isCut = false;
  #isStreamed = false;
  readonly startedMs: number;
  readonly #traffic: KindTraffic;
  readonly #onEnd: ((exchange: Exchange) => void) | undefined;

  /**
   * @param startedMs by any clock
   * @param onEnd called when the answer has been sent, or handed to the network as a whole
   */
  constructor(traffic: KindTraffic, startedMs: number, onEnd?: (exchange: Exchange) => void) {
    this.#traffic = traffic;
    this.startedMs = startedMs;
    this.#onEnd = onEnd;
  }

  /** The answer is there, at least its head. Its body is complete unless `stream` was called. */
  begin(response: Response, isHead: boolean, nowMs: number): void {
    this.status = response.status;
    this.#traffic.count(response.status, this.source, (nowMs - this.startedMs) / 1000);
    if (this.#isStreamed) return;
    if (!isHead) {
      if (this.bytes === 0) this.bytes = Number(response.headers.get("content-length") ?? 0);
      this.#traffic.bytes += this.bytes;
    }
    this.#onEnd?.(this);
  }

  /** A body that is sent piece by piece, counted on its way. It holds back and breaks as the given one does. */
  stream(body: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
    this.#isStreamed = true;
    const reader = body.getReader();
    const end = (isCut: boolean) => {
      this.isCut = isCut;
      this.#onEnd?.(this);
    };
    return new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const { done, value } = await reader.read();
            if (!done) {
              this.bytes += value.length;
              this.#traffic.bytes += value.length;
              return controller.enqueue(value);
            }
          } catch (error) {
            end(true);
            throw error;
          }
          controller.close();
          end(false);
        },
        cancel: async (reason) => {
          end(true);
          await reader.cancel(reason);
        },
      },
      { highWaterMark: 0 },
    );
  }
}
