/** The page for people, from the compiled binary with a real cache, in the real Chromium. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { stat } from "node:fs/promises";
import axe from "axe-core";
import type { Locator, Page } from "playwright-core";
import { openChromium, type Tab, type TestBrowser } from "../support/chromium.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { shellDerivation, type TestNix } from "../support/nix.ts";
import { storeVariables } from "../support/substitute.ts";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

const REVISION = "0123456789abcdef0123456789abcdef01234567";
const HOSTILE = '"><img src=x onerror=alert(1)>';
const NAMES = [
  "firefox-128.0",
  "hello-2.12.1",
  ...Array.from({ length: 40 }, (_, i) => `unit-${100 + i}.service`),
];

let cli: Cli;
let nix: TestNix;
let browser: TestBrowser;
let server: CliServer;
let publicKey: string;
let system: string;

describeWith(["nix", "chromium"], "the page", () => {
  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    browser = cleanup.add(await openChromium());
    await cli.run(["keygen", "page-1", cli.path("s"), cli.path("p")]);
    publicKey = (await Bun.file(cli.path("p")).text()).trim();
    const files = NAMES.map((name) => `(builtins.toFile "${name}" "${name}")`).join(" ");
    system = await nix.build(shellDerivation("system-24.11", `echo ${"$"}{toString [ ${files} ]} > $out`));
    // Whoever publishes says from where: the first says it as an attacker would.
    await publish(await nix.build(shellDerivation("older-1.0", "echo older > $out")), HOSTILE);
    await publish(system, REVISION);
    server = await serve(cli.path("cache"));
  });

  async function publish(path: string, revision: string): Promise<void> {
    const args = ["publish", path, "--cache", cli.path("cache"), "--upstream", ""];
    const actions = { GITHUB_ACTIONS: "true", GITHUB_REPOSITORY: "acme/config", GITHUB_RUN_ID: "77" };
    const env = { ...storeVariables(nix), ...actions, GITHUB_SHA: revision };
    expect(await cli.run([...args, "--signing-key-file", cli.path("s")], { env })).toMatchObject({ code: 0 });
  }

  async function serve(cache: string): Promise<CliServer> {
    const env = { NIXCACHE_INDEX_DIR: cli.path(`index-of-${cache.replaceAll("/", "-")}`) };
    const started = await cli.serve(["--cache", cache, "--upstream", ""], { env });
    expect((await started.get("/_refresh", { method: "POST" })).status).toBe(200);
    return started;
  }

  /** A tab with the page, once it shows paths. */
  async function open(options: Parameters<TestBrowser["tab"]>[0] = {}, of = server): Promise<Tab> {
    const tab = await browser.tab(options);
    await tab.page.goto(of.url);
    await tab.page.waitForSelector("#path-list > :is(table, .nothing)");
    await tab.page.waitForSelector("#publish-list > *");
    return tab;
  }

  /** A publish that is opened. Two of the same second may stand in any order, and the first is open already. */
  async function opened(page: Page, title: string): Promise<Locator> {
    const publish = page.locator(".publish", { has: page.locator(".what", { hasText: title }) });
    if ((await publish.getAttribute("open")) === null) await publish.locator("summary").first().click();
    return publish;
  }

  /** Nothing was complained of, and no request left the server. */
  function expectQuiet({ complaints, requests }: Tab): void {
    expect(complaints).toEqual([]);
    expect(requests.filter((url) => !url.startsWith(`${server.url}/`))).toEqual([]);
  }

  test("shows what is in the cache, and since when", async () => {
    const tab = await open();
    const { page } = tab;
    await page.getByText(`${NAMES.length + 2}`, { exact: true }).waitFor();
    expect(await page.title()).toContain(cli.path("cache"));
    expect(await page.locator(".state").first().textContent()).toMatch(/^Index checked /);
    const newest = await opened(page, "system-24.11");
    expect(await newest.getByRole("link").first().getAttribute("href")).toBe(
      `https://github.com/acme/config/commit/${REVISION}`,
    );
    expect(await newest.getByRole("link").last().getAttribute("rel")).toContain("noopener");
    await newest.locator("details.root > summary").click();
    await newest.locator(".largest li").first().waitFor();
    expect(await newest.locator(".closure p").first().textContent()).toStartWith(
      `${NAMES.length + 1} paths, `,
    );
    expect(await newest.locator(".largest li").count()).toBe(NAMES.length + 1);
    expectQuiet(tab);
  });

  test("a hostile record is text", async () => {
    const tab = await open();
    const older = await opened(tab.page, "older-1.0");
    expect(await older.locator(".record code").textContent()).toBe(HOSTILE);
    expect(await tab.page.locator("img[src=x]").count()).toBe(0);
    expectQuiet(tab);
  });

  test("search finds a path by its name, by its store path, and says when there is none", async () => {
    const tab = await open();
    const search = tab.page.getByRole("searchbox");
    const row = tab.page.locator("tbody tr");
    // Each key overtakes the search of the one before.
    await search.pressSequentially("FIREFOX", { delay: 160 });
    await tab.page.getByText("1 path found").waitFor();
    expect(await row.locator("td").first().textContent()).toBe("128.0");
    const path = await row.locator("code").textContent();
    await search.fill("unit");
    await tab.page.getByText("40 paths found").waitFor();
    expect(await row.count()).toBe(25);
    await tab.page.getByRole("button", { name: "Show more paths" }).click();
    await row.nth(39).waitFor();
    expect(await tab.page.locator("#more-paths").isVisible()).toBe(false);
    await search.fill(path ?? "");
    await tab.page.getByText("1 path found").waitFor();
    await search.fill(HOSTILE);
    await tab.page.getByText("0 paths found").waitFor();
    expect(await tab.page.locator("#path-list").textContent()).toContain(HOSTILE);
    expect(server.log()).toBe("");
    expectQuiet(tab);
  });

  test("copies the lines, as they are", async () => {
    const tab = await open({ permissions: ["clipboard-read", "clipboard-write"] });
    const copied = async (name: string) => {
      await tab.page
        .getByRole("button", { name: "Copy", exact: true })
        .nth(name === "nix.conf" ? 0 : 1)
        .click();
      await tab.page.getByText("Copied").waitFor();
      await tab.page.getByText("Copied").waitFor({ state: "hidden" });
      return tab.page.evaluate<string>("navigator.clipboard.readText()");
    };
    const lines = await copied("nix.conf");
    expect(lines).toBe(`extra-substituters = ${server.url}\nextra-trusted-public-keys = ${publicKey}\n`);
    // The real Nix takes what was copied.
    await Bun.write(cli.path("nix-conf", "nix.conf"), lines);
    const shown = await nix.run("nix", ["--extra-experimental-features", "nix-command", "show-config"], {
      env: { NIX_CONF_DIR: cli.path("nix-conf") },
    });
    expect(shown).toMatch(new RegExp(`^trusted-public-keys = .*${RegExp.escape(publicKey)}`, "m"));
    const module = await copied("NixOS");
    const expression = `let nix.settings = x.nix.settings; x = { ${module} }; in builtins.toJSON nix.settings`;
    const evaluated = await nix.run("nix-instantiate", ["--eval", "--strict", "-E", expression]);
    expect(JSON.parse(JSON.parse(evaluated))).toEqual({
      substituters: [server.url],
      "trusted-public-keys": [publicKey],
    });
    expectQuiet(tab);
  });

  test("works with the keyboard alone, in the order of the page", async () => {
    const tab = await open({ viewport: { width: 1200, height: 900 } });
    const { page } = tab;
    const focused = () =>
      page.evaluate<string>(
        `(({ tagName, id, className, textContent }) => [tagName, id || className, textContent.slice(0, 24)].join("|"))(document.activeElement)`,
      );
    const stops: string[] = [];
    while (stops.at(-1)?.startsWith("INPUT|search") !== true && stops.length < 40) {
      await page.keyboard.press("Tab");
      stops.push(await focused());
      // Where one is must be seen.
      const outline = await page.evaluate<string>("getComputedStyle(document.activeElement).outlineStyle");
      expect([stops.at(-1), outline]).not.toEqual([stops.at(-1), "none"]);
    }
    expect(stops[0]).toStartWith("A|skip|Skip to");
    expect(stops.filter((stop) => stop.startsWith("BUTTON|copy"))).toHaveLength(2);
    expect(stops.filter((stop) => stop.startsWith("SUMMARY"))).toHaveLength(3);
    await page.keyboard.type("hello");
    await page.getByText("1 path found").waitFor();
    await page.keyboard.press("Shift+Tab");
    expect(await focused()).toStartWith("SUMMARY");
    const details = page.locator(".publish").nth(1);
    expect(await details.getAttribute("open")).toBeNull();
    await page.keyboard.press("Enter");
    expect(await details.getAttribute("open")).toBe("");
    expectQuiet(tab);
  });

  describe.each([
    ["light", 1200],
    ["dark", 1200],
    ["light", 320],
    ["dark", 320],
  ] as const)("%s, %i px wide", (colorScheme, width) => {
    test("nothing is cut off or out of reach, and axe finds nothing", async () => {
      const tab = await open({ colorScheme, viewport: { width, height: 800 } });
      const { page } = tab;
      await page.locator("details.root > summary").first().click();
      await page.locator(".largest li").first().waitFor();
      expect(await page.evaluate<number>("document.documentElement.scrollWidth - innerWidth")).toBe(0);
      const ground = await page.evaluate<string>("getComputedStyle(document.body).backgroundColor");
      const [red = 0] = [...ground.matchAll(/\d+/g)].map(Number);
      expect(red > 128).toBe(colorScheme === "light");
      expect(await violations(page)).toEqual([]);
      const file = cli.path(`${colorScheme}-${width}.png`);
      await page.screenshot({ path: file, fullPage: true });
      expect((await stat(file)).size).toBeGreaterThan(10_000);
      expectQuiet(tab);
    });
  });

  test("what is there does not move when the rest arrives", async () => {
    const tab = await browser.tab({ viewport: { width: 1200, height: 900 } });
    await tab.page.addInitScript(
      `window.shift = 0; new PerformanceObserver((list) => {
         for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
       }).observe({ type: "layout-shift", buffered: true });`,
    );
    await tab.page.goto(server.url);
    await tab.page.waitForSelector("#path-list table");
    await tab.page.waitForSelector(".charts svg");
    // https://web.dev/articles/cls calls 0.1 good; the charts alone would be 0.04.
    expect(await tab.page.evaluate<number>("window.shift")).toBeLessThan(0.005);
  });

  test("without JavaScript the lines are there", async () => {
    const tab = await browser.tab({ javaScriptEnabled: false });
    await tab.page.goto(server.url);
    const text = await tab.page.locator("main").textContent();
    expect(text).toContain(`extra-trusted-public-keys = ${publicKey}`);
    expect(text).toContain("needs JavaScript");
    expect(await tab.page.locator(".copy").first().isVisible()).toBe(false);
  });

  test("a publish appears while somebody looks", async () => {
    const tab = await open();
    await publish(await nix.build(shellDerivation("newest-1.0", "echo newest > $out")), REVISION);
    await server.get("/_refresh", { method: "POST" });
    await tab.page.locator(".publish .what", { hasText: "newest-1.0" }).waitFor();
    await tab.page.locator("[data-fact=paths]", { hasText: `${NAMES.length + 3}` }).waitFor();
    await tab.page.getByRole("rowheader", { name: "newest" }).waitFor();
    expectQuiet(tab);
  });

  test("an empty cache says how to fill it", async () => {
    const empty = await serve(cli.path("empty"));
    const tab = await open({}, empty);
    expect(await tab.page.locator("#path-list").textContent()).toContain("nixcache publish");
    expect(await tab.page.locator("#publish-list").textContent()).toContain("Nothing has been published yet");
    expect(await tab.page.locator("main").textContent()).toContain("Nothing in this cache is signed");
    expect(tab.complaints).toEqual([]);
    await empty.stop();
    await tab.page.getByText("The server does not answer").waitFor();
  });

  test("several caches can be chosen from", async () => {
    const env = { NIXCACHE_INDEX_DIR: cli.path("index-both") };
    const args = ["--cache", cli.path("cache"), "--cache", cli.path("empty"), "--upstream", ""];
    const both = await cli.serve(args, { env });
    await both.get("/_refresh", { method: "POST" });
    const tab = await open({}, both);
    await tab.page.locator("tbody tr").first().waitFor();
    await tab.page.getByLabel("Show the contents of").selectOption({ label: cli.path("empty") });
    await tab.page.locator("#path-list .nothing").waitFor();
    expect(tab.complaints).toEqual([]);
    await both.stop();
  });

  test("a page that comes by another name gets nothing", async () => {
    for (const path of ["/", "/_page/overview", "/_page/paths"]) {
      const answer = await server.get(path, { headers: { host: "rebound.example" } });
      expect([path, answer.status]).toEqual([path, 403]);
    }
  });
});

/** What axe finds wrong, in short. https://github.com/dequelabs/axe-core */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const found = await page.evaluate<{ id: string; nodes: { html: string }[] }[]>(
    "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => violations)",
  );
  return found.flatMap(({ id, nodes }) => nodes.map(({ html }) => `${id}: ${html.slice(0, 200)}`));
}
