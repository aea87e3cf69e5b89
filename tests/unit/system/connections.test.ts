/**
 * Servers that cannot be talked to, however often: real ones on loopback, asked by the fetch of the product, as a registry
 * and as an upstream. Each is tried once, and has its own sentence and hint.
 */
import { afterAll, describe, expect, test } from "bun:test";
import http from "node:http";
import http2 from "node:http2";
import https from "node:https";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { ROOT } from "../../../scripts/process.ts";
import { systemWeb } from "../../../src/context.ts";
import { NixcacheError } from "../../../src/errors.ts";
import { openRegistry } from "../../../src/oci/registry.ts";
import { probe } from "../../../src/setup/probe.ts";
import { openUpstream } from "../../../src/upstream/client.ts";
import { Cleanup } from "../../support/lease.ts";
import { startWire } from "../../support/wire.ts";
import { type TestNetwork, testNetwork } from "../oci/network.ts";

const TLS = join(ROOT, "tests", "fixtures", "tls");
const AUTHORITY = join(TLS, "authority.pem");
const read = (file: string) => Bun.file(join(TLS, file)).text();

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

interface Listening {
  readonly port: number;
  /** Connections so far. */
  readonly connections: () => number;
}

async function listen(server: Server): Promise<Listening> {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on("connection", (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.on("error", () => {});
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  cleanup.add({
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  });
  const address = server.address();
  return { port: typeof address === "object" ? (address?.port ?? 0) : 0, connections: () => connections };
}

const answer = (_: unknown, response: { end(text: string): void }) => response.end("ok");

const withCertificate = async (file: string, more: https.ServerOptions = {}) =>
  https.createServer({ key: await read("server-key.pem"), cert: await read(file), ...more }, answer as never);

type Case = [
  name: string,
  server: () => Promise<Server> | Server,
  scheme: "http" | "https",
  host: string,
  variables: Record<string, string>,
  reason: string,
  hint: string,
];

const TRUSTING = { NIX_SSL_CERT_FILE: AUTHORITY };
const UNTRUSTED =
  "no authority that is trusted here has signed the certificate of the server (unable to verify the first certificate)";
const ADD_AUTHORITY = "add the certificate of its authority to the file that NIX_SSL_CERT_FILE names";
const other = { NIX_SSL_CERT_FILE: join(TLS, "other-authority.pem") };

const CASES: Case[] = [
  [
    "a private authority that nobody has named",
    () => withCertificate("server.pem"),
    "https",
    "localhost",
    {},
    UNTRUSTED,
    ADD_AUTHORITY,
  ],
  [
    "another authority than the one that is named",
    () => withCertificate("server.pem"),
    "https",
    "127.0.0.1",
    other,
    UNTRUSTED,
    ADD_AUTHORITY,
  ],
  [
    "a certificate that the server has signed itself",
    () => withCertificate("self-signed.pem"),
    "https",
    "localhost",
    TRUSTING,
    "the server has signed its certificate itself, and nobody trusts it here",
    "add its certificate to the file that NIX_SSL_CERT_FILE names",
  ],
  [
    "a certificate that has expired",
    () => withCertificate("expired.pem"),
    "https",
    "localhost",
    TRUSTING,
    "the certificate of the server has expired",
    "Renew the certificate on the server",
  ],
  [
    "a certificate for another host",
    () => withCertificate("elsewhere.pem"),
    "https",
    "localhost",
    TRUSTING,
    "the certificate of the server is for another host",
    "Write the name that the certificate has",
  ],
  [
    "plain HTTP on a port of TLS",
    () => http.createServer(answer as never),
    "https",
    "127.0.0.1",
    {},
    "the server speaks no TLS on this port",
    "write http:// before the host",
  ],
  [
    "TLS on a port of plain HTTP, and it hangs up",
    () => withCertificate("server.pem"),
    "http",
    "127.0.0.1",
    {},
    "the server speaks TLS on this port, not plain HTTP",
    "Write https:// before the host.",
  ],
  [
    "HTTP/2 alone",
    async () =>
      http2.createSecureServer(
        { key: await read("server-key.pem"), cert: await read("server.pem"), allowHTTP1: false },
        answer as never,
      ),
    "https",
    "localhost",
    TRUSTING,
    "the server speaks HTTP/2 alone",
    "speak HTTP/1.1 as well",
  ],
  [
    "HTTP/2 alone, without TLS",
    () => http2.createServer(answer as never) as unknown as Server,
    "http",
    "127.0.0.1",
    {},
    "the server speaks something else than HTTP/1.1",
    "Check the port of the address.",
  ],
  [
    "SSH",
    () => createServer((socket) => socket.write("SSH-2.0-OpenSSH_9.2\r\n")),
    "http",
    "127.0.0.1",
    {},
    "the server speaks something else than HTTP/1.1",
    "Check the port of the address.",
  ],
  [
    "SSH in the place of TLS",
    () => createServer((socket) => socket.write("SSH-2.0-OpenSSH_9.2\r\n")),
    "https",
    "127.0.0.1",
    {},
    "the server speaks no TLS on this port",
    "Check the port",
  ],
  [
    "a server that asks for a certificate of the client",
    async () => withCertificate("server.pem", { requestCert: true, ca: await read("authority.pem") }),
    "https",
    "localhost",
    TRUSTING,
    "the TLS handshake failed",
    "The server may ask for a certificate of the client",
  ],
  [
    "a file of authorities that is not there",
    () => withCertificate("server.pem"),
    "https",
    "localhost",
    { NIX_SSL_CERT_FILE: "/nowhere/bundle.crt" },
    "NIX_SSL_CERT_FILE: cannot read /nowhere/bundle.crt",
    "Name a file of PEM certificates",
  ],
];

const openAt = (scheme: "http" | "https", host: string, network: TestNetwork) =>
  openRegistry({ kind: "registry", scheme, host, repository: "me/cache" }, { host: network, network });

describe.each(CASES)("%s", (_, makeServer, scheme, host, variables, reason, hint) => {
  test("ends a registry's request at once, with a sentence and a hint", async () => {
    const server = await listen(await makeServer());
    const network = { ...testNetwork(), ...systemWeb(variables) };
    const store = openAt(scheme, `${host}:${server.port}`, network);
    const error = await store.listTags().catch((thrown) => thrown);
    expect(error).toBeInstanceOf(NixcacheError);
    expect(error.message).toContain(reason);
    expect(error.message).not.toContain("tries");
    expect(error.hint).toContain(hint);
    expect(network.sleeps).toEqual([]);
    // One request, and up to three looks at what it speaks instead.
    expect(server.connections()).toBeLessThanOrEqual(4);
  });

  test("is an upstream's failure with the same words", async () => {
    const server = await listen(await makeServer());
    const upstream = openUpstream(`${scheme}://${host}:${server.port}`, {
      web: systemWeb(variables),
      timeoutMs: 5_000,
      stallMs: 5_000,
      userAgent: "test",
    });
    const error = await upstream.request("nar/x.nar", { method: "GET" }).catch((thrown) => thrown);
    expect(error).toMatchObject({ name: "NixcacheError", code: "unreachable", status: undefined });
    expect(error.message).toStartWith(`GET ${scheme}://${host}:${server.port}/nar/x.nar: `);
    expect(error.message).toContain(reason);
    expect(error.hint).toContain(hint);
  });

  test("is what doctor says of a server there", async () => {
    const server = await listen(await makeServer());
    const url = `${scheme}://${host}:${server.port}`;
    const found = await probe(url, systemWeb(variables).fetch as never, AbortSignal.timeout(10_000));
    expect(found).toMatchObject({ kind: "nobody" });
    expect(JSON.stringify(found)).toContain(JSON.stringify(reason).slice(1, -1));
  });
});

describe("a server of TLS that tells a plain client so", () => {
  test("is recognised by that it speaks TLS, whatever its words", async () => {
    const tls = await listen(await withCertificate("server.pem"));
    // As Go's server and nginx do, which look at the first byte.
    const front = createServer((client) => {
      client.on("error", () => {});
      client.once("data", (bytes) => {
        if (bytes[0] !== 0x16)
          return void client.end(
            "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
          );
        const socket = connect(tls.port, "127.0.0.1");
        socket.on("error", () => {});
        socket.write(bytes);
        client.pipe(socket).pipe(client);
      });
    });
    const { port } = await listen(front);
    const network = { ...testNetwork(), ...systemWeb({}) };
    const store = openAt("http", `127.0.0.1:${port}`, network);
    await expect(store.listTags()).rejects.toThrow("the server speaks TLS on this port, not plain HTTP");
    expect(network.sleeps).toEqual([]);
  });

  test("and a plain server that says 400, or resets, is what it is", async () => {
    let resets = false;
    const server = cleanup.add(
      await startWire(async (_, out) => {
        if (resets) return out.reset();
        await out.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
      }),
    );
    const send = systemWeb({}).fetch;
    expect((await send(`http://${server.host}/`, {})).status).toBe(400);
    resets = true;
    await expect(send(`http://${server.host}/`, {})).rejects.toMatchObject({ code: "ECONNRESET" });
    await expect(systemWeb({}).fetch(`http://${server.host}/`, {})).rejects.toMatchObject({
      code: "ECONNRESET",
    });
  });
});

describe("a file of authorities that cannot be read", () => {
  const missing = { NIX_SSL_CERT_FILE: "/nowhere/bundle.crt" };

  test("hurts nobody who needs no TLS", async () => {
    const { port } = await listen(http.createServer(answer as never));
    const response = await systemWeb(missing).fetch(`http://127.0.0.1:${port}/`, {});
    expect(await response.text()).toBe("ok");
  });

  test("is not passed over for a server with TLS that a redirect leads to", async () => {
    const { port } = await listen(await withCertificate("server.pem"));
    const redirecting = http.createServer((_, response) =>
      response.writeHead(302, { location: `https://localhost:${port}/` }).end(),
    );
    const { port: first } = await listen(redirecting);
    const askWith = (variables: Record<string, string>) =>
      openUpstream(`http://127.0.0.1:${first}`, {
        web: systemWeb(variables),
        ...{ timeoutMs: 5_000, stallMs: 5_000, userAgent: "test" },
      }).request("nar/x.nar", { method: "GET" });
    await expect(askWith(missing)).rejects.toThrow("cannot read /nowhere/bundle.crt");
    expect(await (await askWith(TRUSTING))?.text()).toBe("ok");
  });
});

test.each([
  ["without end", "/again", "got more than 5 redirects"],
  ["to what is no address", "http://[", "got a Location that is no URL"],
  ["to another protocol", "ftp://127.0.0.1/x", "got a Location from http: to ftp:, expected https:"],
  ["to where nobody listens", "http://127.0.0.1:1/x", "nobody listens there (connection refused)"],
])("an upstream that redirects %s is a failure in a sentence", async (_, location, reason) => {
  const { port } = await listen(
    http.createServer((_, response) => response.writeHead(302, { location }).end()),
  );
  const upstream = openUpstream(`http://127.0.0.1:${port}`, {
    web: systemWeb({}),
    timeoutMs: 5_000,
    stallMs: 5_000,
    userAgent: "test",
  });
  await expect(upstream.request("nar/x.nar", { method: "GET" })).rejects.toThrow(reason);
});
