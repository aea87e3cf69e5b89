/**
 * 200 clients at once, of which 20 read slowly and 20 hang up: every answer is right, the memory stays within its
 * bound, and afterwards nothing is left over.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import {
  CheckedClient,
  type KnownPath,
  learnPaths,
  someRange,
  unknownUrl,
} from "../support/checked-client.ts";
import { type Cli, type CliServer, openCli } from "../support/cli.ts";
import { Cleanup } from "../support/lease.ts";
import { describeWith, openNix } from "../support/needs.ts";
import { buildClosure, shellDerivation, type TestNix } from "../support/nix.ts";
import { openFiles } from "../support/process-files.ts";
import { writeRandomFile } from "../support/random-file.ts";
import { startRegistry, type TestRegistry } from "../support/registry.ts";
import { type Choices, choices } from "../support/seed-choices.ts";
import { storeVariables } from "../support/substitute.ts";

const MIB = 1024 ** 2;
const MOST_RSS = 200 * MIB;

const CLIENTS = 200;
const SLOW = 20;
const HANG_UP = 20;
/** Of those who read on: how many begin with a large NAR, and how many requests the others make. */
const LARGE_READERS = 16;
const REQUESTS = 12;

/** Sizes of the large NARs. The network between client and server holds some MiB, which is not much of them. */
const LARGE = [20 * MIB, 36 * MIB];
/** A slow client reads this much, and then nothing until the others have read so much. */
const SLOW_READS = MIB;
const OTHERS_READ = 96 * MIB;

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

/** Lets slow clients go on as the others do: by what they have read, not by time. */
class Pace {
  #moved = 0;
  #over = false;
  readonly #waiting = new Set<{ readonly at: number; readonly go: () => void }>();

  moved(bytes: number): void {
    this.#moved += bytes;
    this.#wake();
  }

  /** Resolves when the others have read so many bytes more, or have all that they wanted. */
  after(bytes: number): Promise<void> {
    const waiting = Promise.withResolvers<void>();
    this.#waiting.add({ at: this.#moved + bytes, go: waiting.resolve });
    this.#wake();
    return waiting.promise;
  }

  end(): void {
    this.#over = true;
    this.#wake();
  }

  #wake(): void {
    for (const one of this.#waiting) {
      if (!this.#over && one.at > this.#moved) continue;
      this.#waiting.delete(one);
      one.go();
    }
  }
}

describeWith(["nix", "registry"], `${CLIENTS} clients at once`, () => {
  let cli: Cli;
  let nix: TestNix;
  let registry: TestRegistry;
  let cache: string;
  let small: KnownPath[];
  let large: KnownPath[];

  beforeAll(async () => {
    cli = cleanup.add(await openCli());
    nix = cleanup.add(await openNix()).value;
    registry = cleanup.add(await startRegistry());
    cache = `${registry.host}/many`;
    const closure = await buildClosure(nix, { paths: 60, seed: 31 });
    const files = await Promise.all(
      LARGE.map(async (size, at) => {
        const file = join(nix.folder, `large-${at}`);
        await writeRandomFile(file, size, 31 + at);
        return (await nix.run("nix-store", ["--add", file])).trim();
      }),
    );
    const args = ["publish", closure.root, ...files, "--cache", cache, "--upstream", ""];
    expect(await cli.run(args, { env: storeVariables(nix) })).toMatchObject({ code: 0 });
    small = await learn(closure.paths);
    large = await learn(files);
  });

  async function serve(...args: string[]): Promise<CliServer> {
    const server = await cli.serve(["--cache", cache, "--upstream", "", ...args]);
    expect((await server.get("/_refresh", { method: "POST", keepalive: false })).status).toBe(200);
    return server;
  }

  /** From another server, so that the one under test knows of nothing. */
  async function learn(paths: readonly string[]): Promise<KnownPath[]> {
    const teacher = await serve();
    const known = await learnPaths(teacher, paths, nix);
    await teacher.stop();
    return known;
  }

  interface Status {
    readonly traffic: { readonly under_way: number };
    readonly writing?: { readonly pending_paths: number };
  }

  async function status(server: CliServer): Promise<Status> {
    return (await server.get("/_status", { keepalive: false })).json() as Promise<Status>;
  }

  /** Requests that are not fully answered, this one aside. */
  async function underWay(server: CliServer): Promise<number> {
    return (await status(server)).traffic.under_way - 1;
  }

  /** What Nix and browsers ask for, in an order of chance. */
  async function visit(client: CheckedClient, choice: Choices): Promise<void> {
    const { one, random } = choice;
    for (let request = 0; request < REQUESTS; request++) {
      const path = random() < 0.9 ? one(small) : one(large);
      const kind = random();
      if (kind < 0.4) await client.nar(one(small));
      else if (kind < 0.55) await client.text(path.narinfoUrl, path.narinfo);
      else if (kind < 0.7) await client.nar(path, someRange(path, 4 * MIB, choice));
      else if (kind < 0.8) await client.head(path);
      else if (kind < 0.9) await client.text(path.listingUrl, path.listing);
      else await client.absent(unknownUrl(choice));
    }
  }

  /** @returns how many requests were under way when only the slow ones were left */
  async function crowd(server: CliServer, name: string): Promise<number> {
    const choice = choices(name);
    const pace = new Pace();
    const reading = new CheckedClient(server.url, { came: (bytes) => pace.moved(bytes) });
    const everybodyElse = Array.from({ length: CLIENTS - SLOW }, (_, at) => {
      if (at < HANG_UP) {
        const path = choice.one(at % 4 === 0 ? small : large);
        return reading.hangUp(path.narUrl, choice.below(path.nar.length));
      }
      if (at < HANG_UP + LARGE_READERS) return reading.nar(choice.one(large));
      return visit(reading, choices(`${name} ${at}`));
    });
    const slow = Array.from({ length: SLOW }, () => {
      let read = 0;
      const came = (bytes: number) => {
        read += bytes;
        if (read < SLOW_READS) return;
        read -= SLOW_READS;
        return pace.after(OTHERS_READ);
      };
      return new CheckedClient(server.url, { came }).nar(large.at(-1) as KnownPath);
    });
    const all = Promise.all(slow);
    // Whichever fails first ends the test.
    await Promise.race([Promise.all(everybodyElse), all.then(() => Promise.all(everybodyElse))]);
    const left = await underWay(server);
    pace.end();
    await all;
    return left;
  }

  /** Everything is still answered; then nothing is left of the crowd, and the memory was within its bound. */
  async function expectNothingLeft(server: CliServer, paths: readonly KnownPath[], files: number) {
    const client = new CheckedClient(server.url);
    for (const path of paths) {
      await client.text(path.narinfoUrl, path.narinfo);
      await client.nar(path);
    }
    // The connections that are kept for the next requests end with the registry.
    await registry.stop();
    while ((await underWay(server)) > 0 || openFiles(server.pid) > files) await Bun.sleep(5);
    await registry.start();
    console.log(`${CLIENTS} clients at once: ${Math.round(server.peakRss() / MIB)} MiB at most`);
    expect(server.peakRss()).toBeLessThan(MOST_RSS);
    expect(await server.stop()).toBe(0);
  }

  test("rule 6: 20 read slowly, 20 hang up, and the memory stays within its bound", async () => {
    const server = await serve();
    const files = openFiles(server.pid);
    const left = await crowd(server, "many clients");
    // They were slow for the server, too.
    expect(left).toBeGreaterThanOrEqual(SLOW);
    await expectNothingLeft(server, [...small, ...large], files);
  });

  test("rule 6: the same with a disk cache, and with uploads meanwhile", async () => {
    const server = await serve("--nar-cache", cli.path("nar-cache"), "--writable");
    const files = openFiles(server.pid);
    const uploads = await nix.buildAll(
      `[${Array.from({ length: 20 }, (_, at) => `(${shellDerivation(`upload-${at}`, `echo ${at} > $out`)})`).join(" ")}]`,
    );
    const upload = nix.run("nix", ["copy", "--to", `${server.url}?compression=zstd`, ...uploads]);
    await Promise.all([crowd(server, "many clients and uploads"), upload]);
    while ((await status(server)).writing?.pending_paths !== 0) await Bun.sleep(20);
    const known = await learn(uploads);
    await expectNothingLeft(server, [...small, ...large, ...known], files);
  });
});
