# What the modules have in common: from the options to the arguments and the environment of `nixcache serve`, and to
# what Nix is told of it.
{ lib, cfg }:
let
  inherit (lib) concatMap hasInfix hasPrefix optional optionalString;
  isAnyAddress = lib.elem cfg.listenAddress [
    "0.0.0.0"
    "::"
  ];
in
rec {
  references = lib.unique (optional (cfg.repo != null) cfg.repo ++ cfg.caches);

  # The folder of a reference; null for a registry.
  folderOf =
    reference:
    let
      path = lib.removePrefix "oci:" reference;
    in
    if path != reference || hasPrefix "/" path || hasPrefix "." path then path else null;

  # OWNER/REPO at GitHub. It is passed on as it is: nixcache finds the name of its cache, as src/oci/github-name.ts says.
  isGitHubName =
    text:
    builtins.match "[A-Za-z0-9_-]+/[A-Za-z0-9._-]+" text != null
    && builtins.match ".*/[.]{1,2}|localhost/.*" text == null;

  # ghcr.io itself, and OWNER/REPO, whose first part is no host.
  isGitHub =
    reference:
    builtins.match "(https://)?ghcr[.]io/.*|[A-Za-z0-9_-]+/[^/]+" reference != null
    && folderOf reference == null
    && !hasPrefix "localhost/" reference;

  isLoopback =
    hasPrefix "127." cfg.listenAddress
    || lib.elem cfg.listenAddress [
      "localhost"
      "::1"
    ];

  # Where this machine reaches the server.
  address =
    let
      host =
        if !isAnyAddress then
          cfg.listenAddress
        else if cfg.listenAddress == "::" then
          "::1"
        else
          "127.0.0.1";
    in
    "${if hasInfix ":" host then "[${host}]" else host}:${toString cfg.port}";

  # `trusted` belongs to this one substituter; require-sigs = false would be for all of them.
  substituter = "http://${address}${optionalString (!cfg.requireSignatures) "?trusted=true"}";

  keys = lib.unique (optional (cfg.publicKey != "") cfg.publicKey ++ cfg.publicKeys);

  # Not where the server itself commits generations that nobody signs.
  takesOnlySigned = cfg.requireSignatures && (!cfg.writable || cfg.signingKeyFile != null);

  arguments =
    [ "serve" ]
    ++ concatMap (reference: [
      "--cache"
      reference
    ]) references
    ++ concatMap (name: [
      "--allow-host"
      name
    ]) cfg.allowHosts
    ++ optional cfg.writable "--writable"
    ++ cfg.extraArguments;

  # Variables, not flags, where there are such: environmentFile can replace them, and `ps` does not show them.
  # `folders` are the service's own.
  environment =
    folders:
    {
      NIXCACHE_LISTEN = cfg.listenAddress;
      NIXCACHE_PORT = toString cfg.port;
      NIXCACHE_UPSTREAM = lib.concatStringsSep " " cfg.upstreams;
      NIXCACHE_INDEX_TTL = toString cfg.indexTtl;
      NIXCACHE_LOG_LEVEL = cfg.logLevel;
      NIXCACHE_INDEX_DIR = folders.cache;
      # Less than serve's own 30 s, since an activation waits for a restart. Nix takes up again what was cut.
      NIXCACHE_GRACE = "10s";
      # On disk: /tmp may be memory, which is bounded for the service.
      TMPDIR = "${folders.cache}/tmp";
    }
    // lib.optionalAttrs (takesOnlySigned && keys != [ ]) {
      NIXCACHE_TRUSTED_PUBLIC_KEYS = lib.concatStringsSep " " keys;
    }
    // lib.optionalAttrs cfg.narCache.enable {
      NIXCACHE_NAR_CACHE = if cfg.narCache.directory == null then "${folders.cache}/nars" else toString cfg.narCache.directory;
      NIXCACHE_NAR_CACHE_SIZE = cfg.narCache.size;
    }
    // lib.optionalAttrs cfg.writable {
      NIXCACHE_JOURNAL_DIR = folders.state;
      NIXCACHE_JOURNAL_SIZE = cfg.journalSize;
    }
    // secretFiles;

  # Variables that name files with secrets.
  secretFiles = lib.mapAttrs (_variable: toString) (
    lib.filterAttrs (_variable: path: path != null) {
      REGISTRY_AUTH_FILE = cfg.registryAuthFile;
      NIXCACHE_SIGNING_KEY_FILE = cfg.signingKeyFile;
      NIXCACHE_WRITE_TOKEN_FILE = cfg.writeTokenFile;
    }
  );
}
