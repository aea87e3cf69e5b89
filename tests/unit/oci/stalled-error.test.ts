/** A failure whose explanation never comes: the status says enough, and nobody waits for ever. */
import { expect, test } from "bun:test";
import { openStore } from "../../../src/oci/open.ts";
import { parseReference } from "../../../src/oci/reference.ts";
import { PATIENT } from "../../../src/oci/retry.ts";
import { TestHost } from "../../support/protocol.ts";
import { startWire } from "../../support/wire.ts";

test.each([503, 429, 404, 400])("the body of a %d that stands still is given up", async (status) => {
  let requests = 0;
  const server = await startWire(async (_, answer) => {
    requests++;
    await answer.write(`HTTP/1.1 ${status} Status\r\ncontent-length: 100\r\n\r\n{"errors":`);
    await answer.closed;
  });
  try {
    const policy = { ...PATIENT, attempts: 2, connectTimeoutMs: 50 };
    const store = openStore(parseReference(`${server.host}/cache`), { host: new TestHost(), policy });
    const listed = store.listTags();
    // What a 404 means is in its explanation: it never counts as absence without.
    await expect(listed).rejects.toThrow(`got ${status}`);
    // Each of two tries; without a page size once more, unless the answer says enough.
    expect(requests).toBe(status === 503 ? 4 : 2);
  } finally {
    await server.close();
  }
});
