/** Fixtures that last longer than one function, such as from `beforeAll` to `afterAll`. */

export interface Lease<T> {
  readonly value: T;
  /** Lets go of the fixture, and waits until it is cleaned up. */
  close(): Promise<void>;
}

/** Opens what a `with…` function gives, such as `lease(withNix)`, until it is closed. */
export async function lease<T>(use: (body: (value: T) => Promise<void>) => Promise<void>): Promise<Lease<T>> {
  const opened = Promise.withResolvers<T>();
  const closed = Promise.withResolvers<void>();
  const ended = use(async (value) => {
    opened.resolve(value);
    await closed.promise;
  });
  ended.catch(opened.reject);
  return {
    value: await opened.promise,
    close: () => {
      closed.resolve();
      return ended;
    },
  };
}

/** Closes what it was given, the last first. */
export class Cleanup {
  readonly #stack: (() => Promise<unknown>)[] = [];

  add<T extends { close(): Promise<unknown> }>(resource: T): T {
    this.#stack.push(() => resource.close());
    return resource;
  }

  async run(): Promise<void> {
    for (let close = this.#stack.pop(); close; close = this.#stack.pop()) await close();
  }
}
