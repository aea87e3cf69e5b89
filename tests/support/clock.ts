/**
 * Loaded before `src/main.ts` (`bun --preload`), this is another time: by CLOCK_SKEW_MS milliseconds. Servers are asked
 * at that time too, unless SERVERS_KEEP_TIME is set: then it is a machine whose clock is off. Nothing of the product
 * knows of it.
 */
const skew = Number(process.env.CLOCK_SKEW_MS ?? 0);
const now = Date.now;
const RealDate = Date;

Date.now = () => now() + skew;
globalThis.Date = new Proxy(RealDate, {
  construct: (target, args, self) =>
    Reflect.construct(target, args.length === 0 ? [target.now()] : args, self),
});

if (process.env.SERVERS_KEEP_TIME === undefined) {
  const send = globalThis.fetch;
  const later = async (...args: Parameters<typeof fetch>): Promise<Response> => {
    const response = await send(...args);
    const date = RealDate.parse(response.headers.get("date") ?? "");
    if (!Number.isNaN(date)) response.headers.set("date", new RealDate(date + skew).toUTCString());
    return response;
  };
  globalThis.fetch = Object.assign(later, send);
}
