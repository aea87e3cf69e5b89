/** First lines of requests, and their targets, that no client means well with. */
import { storeHash } from "../support/protocol.ts";

const hash = storeHash("a");

/** Sent as they are. */
export const NO_REQUESTS: string[] = [
  ...[
    "",
    "\r\n",
    "\r\n\r\n",
    "\0",
    "GET",
    "GET \r\n\r\n",
    "GET / \r\n\r\n",
    "GET / HTTP/1.1",
    " / HTTP/1.1\r\n\r\n",
  ],
  ...[
    "GET / HTTP/9.9\r\n\r\n",
    "GET / HTTP/\r\n\r\n",
    "GET / HTP/1.1\r\nHost: x\r\n\r\n",
    "GET  /  HTTP/1.1\r\nHost: x\r\n\r\n",
  ],
  ...["G\0T / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\nHost: x\n\n", "GET / HTTP/1.1\r\nHost\r\n\r\n"],
  ...[
    "GET / HTTP/1.1\r\n: x\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
  ],
  ...[
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH-2.0-x\r\n",
    "\x1b[2J\x1b]0;x\x07\r\n\r\n",
  ],
  ...["GET /\r\n", "é".repeat(100), "x".repeat(100_000), "\r\n".repeat(50_000)],
];

/** Where nothing is. */
export const TARGETS: string[] = [
  ...[
    "//",
    "///etc/passwd",
    "/..",
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc%2fpasswd",
  ],
  ...[
    "/%zz",
    "/%",
    "/%0",
    "/%00",
    "/%c3%28",
    "/%ff.narinfo",
    `/nar/..%2f..%2f${hash}`,
    "/nar/%00",
    "/nar/",
    "/nar",
  ],
  ...[
    "/nar/a%0d%0ax-evil: 1",
    `/${hash}.narinfo%00`,
    `/${hash}.narinfo/`,
    `/x/${hash}.narinfo`,
    "/.narinfo",
    "/\\..\\..\\x",
    "/nar/../nar/x",
  ],
  ...[
    "?",
    "#",
    "*",
    "x",
    "http://",
    "http://x",
    "https://[::1",
    "://",
    "http:///",
    "/?%zz",
    "/#%zz",
    "/__proto__",
    "/constructor",
  ],
  ...[
    "/\x7f",
    "/\u00e9",
    `/${"a".repeat(8000)}`,
    `/${"a/".repeat(8000)}`,
    `/${"%61".repeat(4000)}.narinfo`,
    `/${"x".repeat(200_000)}`,
  ],
];
