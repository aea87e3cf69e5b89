/**
 * Loaded before `src/main.ts` (`bun --preload`), this is a machine whose clock is off: by CLOCK_SKEW_MS
 * milliseconds. Nothing of the product knows of it.
 */
const skew = Number(process.env.CLOCK_SKEW_MS ?? 0);
const now = Date.now;
const RealDate = Date;

Date.now = () => now() + skew;
globalThis.Date = new Proxy(RealDate, {
  construct: (target, args, self) =>
    Reflect.construct(target, args.length === 0 ? [target.now()] : args, self),
});
