/** The real Chromium for tests: Debian's, without a window, with a profile of its own that is removed. */
import { existsSync } from "node:fs";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

const PROGRAM = "/usr/bin/chromium";

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export function hasChromium(): boolean {
  return existsSync(PROGRAM);
}

export interface Tab {
  readonly page: Page;
  /** What the page has complained of: errors in its console, exceptions, requests that failed. */
  readonly complaints: string[];
  /** Addresses of all requests so far. */
  readonly requests: string[];
}

export interface TestBrowser {
  /** A tab in a context of its own. */
  tab(options?: BrowserContextOptions): Promise<Tab>;
  close(): Promise<void>;
}

export async function openChromium(): Promise<TestBrowser> {
  const browser: Browser = await chromium.launch({ executablePath: PROGRAM, args: ARGUMENTS });
  return {
    async tab(options = {}) {
      const context = await browser.newContext(options);
      const page = await context.newPage();
      const complaints: string[] = [];
      const requests: string[] = [];
      page.on("console", (message) => {
        if (message.type() === "error" || message.type() === "warning") complaints.push(message.text());
      });
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("request", (request) => requests.push(request.url()));
      page.on("requestfailed", (request) => {
        // A search that the next key overtakes is given up on purpose.
        const reason = request.failure()?.errorText ?? "";
        if (reason !== "net::ERR_ABORTED") complaints.push(`${request.url()}: ${reason}`);
      });
      return { page, complaints, requests };
    },
    close: () => browser.close(),
  };
}
