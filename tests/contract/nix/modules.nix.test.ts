/** The modules, from a person's options to what the system is told, evaluated by the real Nix. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { parseReference } from "../../../src/oci/reference.ts";
import { nixosLines } from "../../../src/setup/nixos-lines.ts";
import { page } from "../../support/docs.ts";
import { Cleanup } from "../../support/lease.ts";
import { type Evaluated, evaluateModule, type Platform } from "../../support/modules.ts";
import { describeWith, openNix } from "../../support/needs.ts";
import type { TestNix } from "../../support/nix.ts";

const KEY = "me-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER_KEY = "me-2:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=";
const NIXOS_KEY = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
const BASIC = `enable = true; repo = "Owner/Repo"; publicKey = "${KEY}";`;
const AUTHORITIES = "/nix/store/authorities/ca-bundle.crt";
const OWN_NIX = '{ nix.package = "/nix/store/nix"; }';
const PROGRAM = "/nix/store/nixcache/bin/nixcache";

const cleanup = new Cleanup();
afterAll(() => cleanup.run());

let nix: TestNix;
const evaluated = (platform: Platform, options: string, more?: string): Promise<Evaluated> =>
  evaluateModule(nix, platform, `{ ${options} }`, more);
const service = async (options: string, more?: string) =>
  (await evaluated("nixos", options, more)).systemd.services["nixcache-proxy"];
const userService = async (options: string, more?: string) =>
  (await evaluated("home", options, more ?? OWN_NIX)).systemd.user.services["nixcache-proxy"];

describeWith(["nix"], "the modules", () => {
  beforeAll(async () => {
    nix = cleanup.add(await openNix()).value;
  });

  describe("NixOS", () => {
    test("what one who knows nixcache-oci writes is all that is needed", async () => {
      const system = await evaluated("nixos", BASIC);
      expect(system.failed).toEqual([]);
      expect(system.nix.settings).toEqual({
        substituters: ["http://127.0.0.1:37515", "https://cache.nixos.org/"],
        "trusted-public-keys": [KEY, NIXOS_KEY],
        fallback: true,
      });
      expect(system.networking.firewall.allowedTCPPorts).toEqual([]);
      expect(system.users).toEqual({ users: {}, groups: {} });
      expect(system.systemd.tmpfiles.rules).toEqual([]);
      const { serviceConfig, environment, ...unit } = system.systemd.services["nixcache-proxy"];
      expect(unit).toEqual({
        description: "Nix binary cache from a container registry",
        wantedBy: ["multi-user.target"],
        after: ["network.target"],
        stopIfChanged: false,
        startLimitIntervalSec: 0,
        restartTriggers: [AUTHORITIES],
      });
      expect(environment).toEqual({
        NIXCACHE_LISTEN: "127.0.0.1",
        NIXCACHE_TRUSTED_PUBLIC_KEYS: "me-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        NIXCACHE_PORT: "37515",
        NIXCACHE_UPSTREAM: "https://cache.nixos.org",
        NIXCACHE_INDEX_TTL: "300",
        NIXCACHE_LOG_LEVEL: "info",
        NIXCACHE_GRACE: "10s",
        NIXCACHE_INDEX_DIR: "/var/cache/nixcache-proxy",
        NIX_SSL_CERT_FILE: AUTHORITIES,
        TMPDIR: "/var/cache/nixcache-proxy/tmp",
      });
      expect(serviceConfig).toMatchObject({
        Type: "notify",
        ExecStart: `${PROGRAM} serve --cache Owner/Repo`,
        DynamicUser: true,
        CacheDirectory: ["nixcache-proxy", "nixcache-proxy/tmp"],
        NoNewPrivileges: true,
        ProtectSystem: "strict",
        PrivateUsers: true,
        CapabilityBoundingSet: "",
        SystemCallFilter: ["@system-service", "~@privileged"],
        MemoryMax: "1G",
      });
      // Bun compiles what it runs.
      expect(serviceConfig).not.toHaveProperty("MemoryDenyWriteExecute");
      for (const absent of ["StateDirectory", "EnvironmentFile"])
        expect(serviceConfig).not.toHaveProperty(absent);
    });

    test("nothing at all unless it is enabled", async () => {
      const system = await evaluated("nixos", "");
      expect(system.failed).toEqual([]);
      expect(system.systemd.services).toEqual({});
      expect(system.nix.settings.substituters).toEqual(["https://cache.nixos.org/"]);
    });

    test("several caches, in their order, each once; arguments are quoted for systemd", async () => {
      const options = `${BASIC} caches = [ "ghcr.io/x/y" "/srv/a b" "Owner/Repo" "oci:/srv/50%$" ];
        allowHosts = [ "nas.example" ]; extraArguments = [ "--connections" "8" ];`;
      expect((await service(options)).serviceConfig.ExecStart).toBe(
        `${PROGRAM} serve --cache Owner/Repo --cache ghcr.io/x/y --cache "/srv/a b" --cache "oci:/srv/50%%$$"` +
          " --allow-host nas.example --connections 8",
      );
    });

    test("secrets: a file of variables, and credentials under the names of their variables", async () => {
      const options = `${BASIC} environmentFile = "/run/secrets/env"; registryAuthFile = "/run/secrets/auth.json";
        writable = true; signingKeyFile = "/run/secrets/key"; writeTokenFile = "/run/secrets/token";`;
      const { environment, serviceConfig } = await service(options);
      expect(serviceConfig).toMatchObject({
        EnvironmentFile: "/run/secrets/env",
        LoadCredential: [
          "NIXCACHE_SIGNING_KEY_FILE:/run/secrets/key",
          "NIXCACHE_WRITE_TOKEN_FILE:/run/secrets/token",
          "REGISTRY_AUTH_FILE:/run/secrets/auth.json",
        ],
        StateDirectory: "nixcache-proxy",
      });
      expect(environment).toMatchObject({
        NIXCACHE_SIGNING_KEY_FILE: "%d/NIXCACHE_SIGNING_KEY_FILE",
        NIXCACHE_WRITE_TOKEN_FILE: "%d/NIXCACHE_WRITE_TOKEN_FILE",
        REGISTRY_AUTH_FILE: "%d/REGISTRY_AUTH_FILE",
        NIXCACHE_JOURNAL_DIR: "/var/lib/nixcache-proxy",
        NIXCACHE_JOURNAL_SIZE: "20G",
      });
      expect(serviceConfig.ExecStart).toEndWith("--writable");
    });

    test("the values of variables are no specifiers of systemd", async () => {
      const { environment } = await service(`${BASIC} upstreams = [ "https://a/%20b" "https://c" ];`);
      expect(environment.NIXCACHE_UPSTREAM).toBe("https://a/%%20b https://c");
      expect((await service(`${BASIC} upstreams = [ ];`)).environment.NIXCACHE_UPSTREAM).toBe("");
    });

    test("nor are the paths of secrets and folders", async () => {
      const { serviceConfig } =
        await service(`${BASIC} registryAuthFile = "/run/100%.json"; environmentFile = "/run/5%";
        narCache = { enable = true; directory = "/data/$a %b"; };`);
      expect(serviceConfig).toMatchObject({
        LoadCredential: ["REGISTRY_AUTH_FILE:/run/100%%.json"],
        EnvironmentFile: "/run/5%%",
        // $ begins a variable in the lines of commands alone.
        ReadWritePaths: ['"/data/$a %%b"'],
      });
    });

    test("a machine that installs no authorities in /etc trusts those of its configuration", async () => {
      const { environment } = await service(BASIC, "{ security.pki.installCACerts = false; }");
      expect(environment.NIX_SSL_CERT_FILE).toBe(AUTHORITIES);
    });

    test("folders elsewhere get an owner that stays the same", async () => {
      const options = `enable = true; caches = [ "/srv/cache" ]; publicKey = "${KEY}"; writable = true;
        narCache = { enable = true; directory = "/data/nars"; size = "5G"; };`;
      const system = await evaluated("nixos", options);
      expect(system.failed).toEqual([]);
      const { environment, serviceConfig } = system.systemd.services["nixcache-proxy"];
      expect(serviceConfig).toMatchObject({
        DynamicUser: false,
        ReadWritePaths: ["/data/nars", "/srv/cache"],
      });
      expect(environment).toMatchObject({ NIXCACHE_NAR_CACHE: "/data/nars", NIXCACHE_NAR_CACHE_SIZE: "5G" });
      expect(system.users.users["nixcache-proxy"]).toEqual({ isSystemUser: true, group: "nixcache-proxy" });
      expect(system.systemd.tmpfiles.rules).toEqual([
        "d /data/nars 0750 nixcache-proxy nixcache-proxy -",
        "d /srv/cache 0750 nixcache-proxy nixcache-proxy -",
      ]);
      const own = await service(`${BASIC} narCache.enable = true;`);
      expect(own.environment.NIXCACHE_NAR_CACHE).toBe("/var/cache/nixcache-proxy/nars");
      expect(own.serviceConfig.DynamicUser).toBe(true);
    });

    test("a port below 1024 costs a capability", async () => {
      const { serviceConfig } = await service(`${BASIC} port = 80;`);
      expect(serviceConfig).toMatchObject({
        CapabilityBoundingSet: "CAP_NET_BIND_SERVICE",
        AmbientCapabilities: "CAP_NET_BIND_SERVICE",
        PrivateUsers: false,
      });
    });

    test("a proxy of the machine is the service's too", async () => {
      const more = '{ networking.proxy.envVars.https_proxy = "http://proxy:3128"; }';
      expect((await service(BASIC, more)).environment.https_proxy).toBe("http://proxy:3128");
    });

    test("a person's own unit settings win", async () => {
      const more = '{ systemd.services.nixcache-proxy.serviceConfig.MemoryMax = "2G"; }';
      expect((await service(BASIC, more)).serviceConfig.MemoryMax).toBe("2G");
      const fallback = await evaluated("nixos", BASIC, "{ nix.settings.fallback = false; }");
      expect(fallback.nix.settings.fallback).toBe(false);
    });

    test.each([
      ["0.0.0.0", "http://127.0.0.1:37515"],
      ["::", "http://[::1]:37515"],
      ["192.168.1.2", "http://192.168.1.2:37515"],
      ["fd00::1", "http://[fd00::1]:37515"],
    ])("listening on %s, Nix asks %s", async (address, url) => {
      const { failed, nix: configured } = await evaluated("nixos", `${BASIC} listenAddress = "${address}";`);
      expect(failed).toEqual([]);
      expect(configured.settings.substituters).toEqual([url, "https://cache.nixos.org/"]);
    });

    test("without signatures this substituter alone is trusted", async () => {
      const system = await evaluated("nixos", 'enable = true; repo = "a/b"; requireSignatures = false;');
      expect(system.failed).toEqual([]);
      expect(system.nix.settings).toEqual({
        substituters: ["http://127.0.0.1:37515?trusted=true", "https://cache.nixos.org/"],
        "trusted-public-keys": [NIXOS_KEY],
        fallback: true,
      });
    });

    test("keys are changed one after the other", async () => {
      const { nix: configured } = await evaluated(
        "nixos",
        `${BASIC} publicKeys = [ "${OTHER_KEY}" "${KEY}" ];`,
      );
      expect(configured.settings["trusted-public-keys"]).toEqual([KEY, OTHER_KEY, NIXOS_KEY]);
    });

    test("a server for others: the firewall, the metrics, and nothing for Nix", async () => {
      const options = `enable = true; repo = "a/b"; listenAddress = "0.0.0.0"; openFirewall = true; metrics = true;
        configureNix = false;`;
      const system = await evaluated("nixos", options, "{ services.prometheus.enable = true; }");
      expect(system.failed).toEqual([]);
      expect(system.networking.firewall.allowedTCPPorts).toEqual([37515]);
      expect(system.scrapeConfigs).toEqual([
        { job_name: "nixcache-proxy", static_configs: [{ targets: ["127.0.0.1:37515"] }] },
      ]);
      expect(system.nix.settings).toEqual({
        substituters: ["https://cache.nixos.org/"],
        "trusted-public-keys": [NIXOS_KEY],
        fallback: false,
      });
    });
  });

  test.each([
    ["o/r", [KEY]],
    ["registry.example/team/cache", [KEY, OTHER_KEY]],
  ])("what `use --mode nixos` prints for %s is such a configuration", async (reference, keys) => {
    const [lines = ""] = nixosLines(parseReference(reference), "http://127.0.0.1:8080", keys).split("\n\n");
    const system = await evaluateModule(nix, "nixos", "{ }", `{ ${lines} }`);
    expect(system.failed).toEqual([]);
    expect(system.nix.settings).toMatchObject({
      substituters: ["http://127.0.0.1:8080", "https://cache.nixos.org/"],
      "trusted-public-keys": [...keys, NIXOS_KEY],
    });
    expect(system.systemd.services["nixcache-proxy"].serviceConfig.ExecStart).toEndWith(
      ` --cache ${reference}`,
    );
  });

  test.each(
    page("docs/clients.md")
      .blocks.filter(({ text }) => /^\{ nixcache,[\s\S]*nixcache\.\w+Modules\.default/.test(text))
      .map(({ at, text }) => [at, text] as const),
  )("%s is a configuration", async (_, text) => {
    const platform = /nixcache\.(\w+)Modules/.exec(text)?.[1] as Platform;
    const given = `{ nixcache.${platform}Modules.default = { }; pkgs.nix = "/nix/store/nix"; }`;
    const configuration = `(${text.replaceAll("me-1:…", KEY)}) ${given}`;
    const { failed, warnings } = await evaluateModule(nix, platform, "{ }", configuration);
    expect({ failed, warnings }).toEqual({ failed: [], warnings: [] });
  });

  test.each<Platform>(["nixos", "darwin", "home"])(
    "%s: where something else writes nix.conf, it is said what belongs there",
    async (platform) => {
      const off = "{ nix.enable = false; }";
      const { failed, warnings, nix: configured } = await evaluated(platform, BASIC, off);
      expect(failed).toEqual([]);
      expect(warnings).toHaveLength(1);
      for (const line of [
        "nix.enable is false",
        "  extra-substituters = http://127.0.0.1:37515\n",
        `  extra-trusted-public-keys = ${KEY}\n`,
        "  fallback = true\n",
      ])
        expect(warnings[0]).toContain(line);
      expect(configured.settings.fallback ?? false).toBe(false);
      expect((await evaluated(platform, `${BASIC} configureNix = false;`, off)).warnings).toEqual([]);
    },
  );

  describe("nix-darwin", () => {
    test("a daemon of launchd under a user of its own", async () => {
      const system = await evaluated("darwin", BASIC);
      expect(system.failed).toEqual([]);
      expect(system.nix.settings.substituters).toEqual([
        "http://127.0.0.1:37515",
        "https://cache.nixos.org/",
      ]);
      expect(system.launchd.daemons["nixcache-proxy"].serviceConfig).toMatchObject({
        ProgramArguments: [
          "/bin/sh",
          "-c",
          `set -e; /bin/wait4path /nix/store; exec ${PROGRAM} serve --cache Owner/Repo`,
        ],
        KeepAlive: true,
        RunAtLoad: true,
        ThrottleInterval: 1,
        UserName: "_nixcache-proxy",
        EnvironmentVariables: {
          NIXCACHE_INDEX_DIR: "/var/lib/nixcache-proxy/cache",
          NIX_SSL_CERT_FILE: "/etc/ssl/certs/ca-certificates.crt",
        },
      });
      expect(system.users.knownUsers).toEqual(["_nixcache-proxy"]);
      expect(system.users.users["_nixcache-proxy"]).toMatchObject({ uid: 431, gid: 431, createHome: true });
    });

    test("the file of variables is read by the shell, whatever its name", async () => {
      const options = `${BASIC} environmentFile = "/etc/it's here"; signingKeyFile = "/k"; writable = true;`;
      const { ProgramArguments, EnvironmentVariables } = (await evaluated("darwin", options)).launchd.daemons[
        "nixcache-proxy"
      ].serviceConfig;
      expect(ProgramArguments[2]).toContain("set -a; . '/etc/it'\\''s here'; set +a; exec ");
      expect(EnvironmentVariables).toMatchObject({
        NIXCACHE_SIGNING_KEY_FILE: "/k",
        NIXCACHE_JOURNAL_DIR: "/var/lib/nixcache-proxy/state",
      });
    });

    test("where something else manages Nix, it is left alone", async () => {
      const system = await evaluated("darwin", BASIC, "{ nix.enable = false; }");
      expect(system.nix.settings.substituters).toEqual(["https://cache.nixos.org/"]);
    });

    test("on Intel, as long as nixpkgs has it", async () => {
      const { failed } = await evaluateModule(nix, "darwin", `{ ${BASIC} }`, "{ }", "x86_64-darwin");
      expect(failed).toEqual([]);
    });

    test.each(["openFirewall", "metrics"])("%s is no option", async (option) => {
      await expect(evaluated("darwin", `${BASIC} ${option} = true;`)).rejects.toThrow(/does not exist/);
    });
  });

  describe("home-manager", () => {
    test("a unit of the user, whose nix.conf adds to the system's", async () => {
      const home = await evaluated("home", BASIC, OWN_NIX);
      expect(home.failed).toEqual([]);
      expect(home.nix.settings).toEqual({
        "extra-substituters": ["http://127.0.0.1:37515"],
        "extra-trusted-public-keys": [KEY],
        fallback: true,
      });
      const { Service, Install } = home.systemd.user.services["nixcache-proxy"];
      expect(Service).toMatchObject({ Type: "notify", ExecStart: `${PROGRAM} serve --cache Owner/Repo` });
      expect(Service.Environment).toContain('"NIXCACHE_INDEX_DIR=/home/me/.cache/nixcache-proxy"');
      expect(Install).toEqual({ WantedBy: ["default.target"] });
      expect(home.launchd.agents).toEqual({});
      // A user's manager may have no right to namespaces.
      for (const name of ["DynamicUser", "PrivateTmp", "ProtectSystem", "CapabilityBoundingSet"])
        expect(Service).not.toHaveProperty(name);
    });

    test("folders, secrets and authorities are the user's own", async () => {
      const options = `${BASIC} narCache.enable = true; writable = true; signingKeyFile = "/home/me/100%.key";
        environmentFile = "/home/me/env";`;
      const more = '{ home.sessionVariables.NIX_SSL_CERT_FILE = "/home/me/ca.crt"; }';
      const { Service } = await userService(options, more);
      for (const variable of [
        "NIXCACHE_NAR_CACHE=/home/me/.cache/nixcache-proxy/nars",
        "NIXCACHE_JOURNAL_DIR=/home/me/.local/state/nixcache-proxy",
        "NIXCACHE_SIGNING_KEY_FILE=/home/me/100%%.key",
        "NIX_SSL_CERT_FILE=/home/me/ca.crt",
      ])
        expect(Service.Environment).toContain(JSON.stringify(variable));
      expect(Service.EnvironmentFile).toBe("/home/me/env");
      const expanded = await userService(
        options,
        '{ home.sessionVariables.NIX_SSL_CERT_FILE = "$HOME/ca.crt"; }',
      );
      expect(expanded.Service.Environment.join()).not.toContain("NIX_SSL_CERT_FILE");
    });

    test("on macOS an agent of launchd", async () => {
      const home = await evaluateModule(nix, "home", `{ ${BASIC} }`, "{ }", "aarch64-darwin");
      expect(home.systemd.user.services).toEqual({});
      expect(home.launchd.agents["nixcache-proxy"]).toMatchObject({
        enable: true,
        config: {
          ProgramArguments: [
            "/bin/sh",
            "-c",
            expect.stringContaining(`exec ${PROGRAM} serve --cache Owner/Repo`),
          ],
          StandardErrorPath: "/home/me/Library/Logs/nixcache-proxy.log",
        },
      });
    });
  });

  describe("what cannot work is refused with a sentence", () => {
    const writable = `${BASIC} writable = true; environmentFile = "/run/env";`;
    test.each<[string, string]>([
      ["no cache is named. Set repo", `enable = true; publicKey = "${KEY}";`],
      [
        'repo is "ghcr.io/a/b", expected OWNER/REPO',
        `enable = true; publicKey = "${KEY}"; repo = "ghcr.io/a/b";`,
      ],
      ...["r.example/b", "localhost/b", "a/..", "a", "a/b/c"].map((repo): [string, string] => [
        `repo is ${JSON.stringify(repo)}, expected OWNER/REPO`,
        `enable = true; publicKey = "${KEY}"; repo = ${JSON.stringify(repo)};`,
      ]),
      ["without a public key Nix takes nothing", 'enable = true; repo = "a/b";'],
      ['"me-1" is no public key', `${BASIC} publicKeys = [ "me-1" ];`],
      ['"ssh-ed25519 AAAA" is no public key', 'enable = true; repo = "a/b"; publicKey = "ssh-ed25519 AAAA";'],
      ["port is 0", `${BASIC} port = 0;`],
      ["listenAddress is empty", `${BASIC} listenAddress = "";`],
      ['the upstream "cache.nixos.org" is no URL', `${BASIC} upstreams = [ "cache.nixos.org" ];`],
      ["an upstream has a password in it", `${BASIC} upstreams = [ "https://me:secret@cache.example" ];`],
      ['the folder "./cache" is relative', `${BASIC} caches = [ "./cache" ];`],
      ['the folder "cache" is relative', `${BASIC} caches = [ "oci:cache" ];`],
      ["has a line break", `${BASIC} caches = [ "a/b\\nc" ];`],
      ["the service cannot see /home/me/cache", `${BASIC} caches = [ "/home/me/cache" ];`],
      ["the service cannot see /root/nars", `${BASIC} narCache.directory = "/root/nars";`],
      ["the folder /nix/store/x is in the Nix store", `${BASIC} narCache.directory = "/nix/store/x";`],
      ["environmentFile is in the Nix store", `${BASIC} environmentFile = "/nix/store/x-env";`],
      ["signingKeyFile is in the Nix store", `${writable} signingKeyFile = "/nix/store/x-key";`],
      [
        "environmentFile is in the Nix store",
        `${BASIC} environmentFile = builtins.toFile "env" "GITHUB_TOKEN=x";`,
      ],
      ["Set writable = true as well", `${BASIC} signingKeyFile = "/run/key";`],
      ["uploads go to GitHub", `${BASIC} writable = true;`],
      [
        "would let everybody write",
        `enable = true; caches = [ "r.example/x" ]; publicKey = "${KEY}"; writable = true; listenAddress = "0.0.0.0";`,
      ],
      ['Set listenAddress = "0.0.0.0" as well', `${BASIC} openFirewall = true;`],
      ["Set services.prometheus.enable = true", `${BASIC} metrics = true;`],
    ])("%s", async (sentence, options) => {
      const { failed } = await evaluated("nixos", options);
      expect(failed).toHaveLength(1);
      expect(failed[0]).toStartWith("services.nixcache-proxy: ");
      expect(failed[0]).toContain(sentence);
      expect(failed[0]).not.toContain("secret@");
    });

    test.each([
      ["port = 70000;", "16 bit unsigned integer"],
      ['narCache = { enable = true; size = "much"; };', "string matching the pattern"],
      ["indexTtl = 0;", "integer between 1 and 86400"],
      ['environmentFile = "env";', "absolute path"],
      ['logLevel = "debug";', "one of"],
    ])("%s is of a wrong type", async (options, type) => {
      await expect(service(`${BASIC} ${options}`)).rejects.toThrow(type);
    });

    test.each(["o/.dotfiles", "o/foo-", "o/-x", "o/__x", "o/a..b", "Acme_Corp/X", "foo-/r"])(
      "%s is a repository at GitHub, and passed on as it is",
      async (repo) => {
        const options = `enable = true; publicKey = "${KEY}"; repo = "${repo}"; writable = true;`;
        const { failed } = await evaluated("nixos", options);
        expect(failed).toEqual([expect.stringContaining("uploads go to GitHub")]);
      },
    );

    test("a person's own service may read what is in their home", async () => {
      const { failed } = await evaluated(
        "home",
        `${BASIC} caches = [ "/home/me/cache" ]; writable = true;`,
        OWN_NIX,
      );
      expect(failed).toEqual([]);
    });
  });
});
