import { describe, expect, test } from "bun:test";
import { locateStore, type Machine } from "../../../src/nix/location.ts";

const DEFAULT = {
  storeDir: "/nix/store",
  realStoreDir: "/nix/store",
  database: "/nix/var/nix/db/db.sqlite",
  logDir: "/nix/var/log/nix",
};
const chroot = (root: string) => ({
  storeDir: "/nix/store",
  realStoreDir: `${root}/nix/store`,
  database: `${root}/nix/var/nix/db/db.sqlite`,
  logDir: `${root}/nix/var/log/nix`,
});

describe("locateStore", () => {
  test.each<[string, string | undefined, Record<string, string>, object]>([
    ["nothing said", undefined, {}, { ...DEFAULT, asksDaemon: false }],
    ["empty variables", "", { NIX_REMOTE: "", NIX_STATE_DIR: "", NIX_STORE_DIR: "" }, DEFAULT],
    ["auto", undefined, { NIX_REMOTE: "auto" }, DEFAULT],
    ["local", undefined, { NIX_REMOTE: "local" }, DEFAULT],
    ["daemon", undefined, { NIX_REMOTE: "daemon" }, { ...DEFAULT, asksDaemon: true }],
    [
      "a daemon's socket, whose database may be anywhere",
      undefined,
      { NIX_REMOTE: "unix:///run/nix" },
      { ...DEFAULT, database: undefined, asksDaemon: true },
    ],
    [
      "a daemon's socket, with the folder of its database",
      undefined,
      { NIX_REMOTE: "unix:///run/nix?state=/v" },
      { ...DEFAULT, database: "/v/db/db.sqlite", asksDaemon: true },
    ],
    [
      "the usual socket by its name",
      undefined,
      { NIX_REMOTE: "unix:///nix/var/nix/daemon-socket/socket" },
      { ...DEFAULT, asksDaemon: true },
    ],
    ["a root as Nix 2.34 says it", "local:///r%20s", {}, { ...chroot("/r s"), storeUri: "/r s" }],
    [
      "the usual store although NIX_REMOTE says another",
      "auto",
      { NIX_REMOTE: "/r" },
      { ...DEFAULT, storeUri: "auto" },
    ],
    [
      "folders of its own",
      undefined,
      { NIX_STORE_DIR: "/s/store", NIX_STATE_DIR: "/s/var" },
      { storeDir: "/s/store", realStoreDir: "/s/store", database: "/s/var/db/db.sqlite" },
    ],
    ["a root in NIX_REMOTE", undefined, { NIX_REMOTE: "/r" }, chroot("/r")],
    ["a relative root in NIX_REMOTE", undefined, { NIX_REMOTE: "./r" }, chroot("/cwd/r")],
    ["a root in a URI", undefined, { NIX_REMOTE: "local?root=/r" }, chroot("/r")],
    ["an encoded root in a URI", undefined, { NIX_REMOTE: "local://?root=/r%20s" }, chroot("/r s")],
    ["a root given", "/r", { NIX_REMOTE: "daemon" }, { ...chroot("/r"), storeUri: "/r", asksDaemon: false }],
    ["a root given without a slash", "r", {}, { ...chroot("/cwd/r"), storeUri: "/cwd/r" }],
    ["a log folder of its own", undefined, { NIX_LOG_DIR: "/s/log" }, { ...DEFAULT, logDir: "/s/log" }],
    ["NIX_LOG_DIR is not a chroot store's", "/r", { NIX_LOG_DIR: "/s/log" }, chroot("/r")],
    ["NIX_STATE_DIR is not a chroot store's", "/r", { NIX_STATE_DIR: "/s/var" }, chroot("/r")],
    [
      "all by URI",
      "local?real=/x/store&state=/x/var&log=/x/log",
      {},
      { ...DEFAULT, realStoreDir: "/x/store", database: "/x/var/db/db.sqlite", logDir: "/x/log" },
    ],
  ])("%s", (_, store, env, expected) => {
    expect(locateStore(store, env, "/cwd")).toMatchObject(expected);
  });

  describe("a machine without Nix's folders", () => {
    const bare = { exists: () => false, uid: 1000 };
    const env = { HOME: "/home/me" };
    const own = chroot("/home/me/.local/share/nix/root");
    test.each<[string, Record<string, string>, Partial<Machine>, object]>([
      ["a store of the user's own", env, {}, own],
      ["where XDG has it", { XDG_DATA_HOME: "/data" }, {}, chroot("/data/nix/root")],
      ["not for root", env, { uid: 0 }, DEFAULT],
      ["not where there are some", env, { exists: (path) => path === "/nix/var/nix" }, DEFAULT],
      ["not where they are elsewhere", { ...env, NIX_STATE_DIR: "/s" }, {}, { database: "/s/db/db.sqlite" }],
      ["not for a local store", { ...env, NIX_REMOTE: "local" }, {}, DEFAULT],
    ])("%s", (_, variables, machine, expected) => {
      expect(locateStore(undefined, variables, "/cwd", { ...bare, ...machine })).toMatchObject(expected);
    });
  });

  test.each(["ssh-ng://host", "https://cache.nixos.org", "s3://bucket", "nonsense"])(
    "%s is refused",
    (remote) => {
      expect(() => locateStore(undefined, { NIX_REMOTE: remote }, "/cwd")).toThrow("are not on this machine");
    },
  );
});
