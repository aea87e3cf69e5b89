/** What `createUpstreams` is given in tests that are not about it. */
export const ANY_UPSTREAMS = { key: new Uint8Array(32).fill(7), trusted: [] } as const;
