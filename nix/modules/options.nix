# The options of services.nixcache-proxy, for all three module systems. Those that cmspam/nixcache-oci has keep their
# names and types. docs/options.md is made from here.
{
  lib,
  # "nixos", "darwin" or "home".
  platform,
  package,
}:
let
  inherit (lib) mkOption types literalExpression;
  size = types.strMatching "[0-9]+[KMGT]?";
  # A path literal would be copied to the store, which everybody can read; assertions.nix looks for that.
  secretFile = types.nullOr types.path;
in
{
  enable = mkOption {
    type = types.bool;
    default = false;
    example = true;
    description = "Whether to serve Nix binary caches that live in container registries to this machine.";
  };

  package = mkOption {
    type = types.package;
    default = package;
    defaultText = literalExpression "the package nixcache of this flake";
    example = literalExpression "inputs.nixcache.packages.\${system}.nixcache-bin";
    description = "Which nixcache runs.";
  };

  repo = mkOption {
    type = types.nullOr types.str;
    default = null;
    example = "OWNER/REPO";
    description = "The GitHub repository whose cache is served: `OWNER/REPO` stands for `ghcr.io/owner/repo/nix-cache`.";
  };

  caches = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [
      "registry.example.org/team/nix-cache"
      "/srv/nix-cache"
    ];
    description = ''
      Further caches: `OWNER/REPO`, `HOST/NAME` of any registry, or the absolute path of an OCI image layout. The first
      cache that has a path answers, `repo` before all of these.
    '';
  };

  upstreams = mkOption {
    type = types.listOf types.str;
    default = [ "https://cache.nixos.org" ];
    description = ''
      Binary caches that are asked for what the caches do not have. One that wants a password does not belong here,
      where everybody on the machine can read it: set `NIXCACHE_UPSTREAM` in `environmentFile`.
    '';
  };

  listenAddress = mkOption {
    type = types.str;
    default = "127.0.0.1";
    example = "0.0.0.0";
    description = "The address to listen on. The default lets this machine alone connect.";
  };

  port = mkOption {
    type = types.port;
    default = 37515;
    description = "The port to listen on.";
  };

  allowHosts = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [ "cache.example.org" ];
    description = "Names by which clients reach the server, such as that of a reverse proxy in front of it.";
  };

  publicKey = mkOption {
    type = types.str;
    default = "";
    example = "my-cache-1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    description = "The public key that the cache is signed with, which Nix shall trust: the line that `nixcache keygen` writes.";
  };

  publicKeys = mkOption {
    type = types.listOf types.str;
    default = [ ];
    description = "Further public keys that Nix shall trust: of further caches, or an older one while keys are changed.";
  };

  requireSignatures = mkOption {
    type = types.bool;
    default = true;
    description = ''
      Whether Nix takes only what is signed by a trusted key. `false` lifts that for this server alone; other caches are
      checked as before.
    '';
  };

  configureNix = mkOption {
    type = types.bool;
    default = true;
    description = ''
      Whether Nix on this machine uses the server: the first of its substituters, the public keys, and `fallback`, so
      that builds go on while the server is down. Set it to `false` on a machine that only serves others.
    '';
  };

  environmentFile = mkOption {
    type = secretFile;
    default = null;
    example = "/run/secrets/nixcache.env";
    description = ''
      A file of lines `NAME=value` that is read when the server starts, for secrets such as `GITHUB_TOKEN`, which a
      private cache needs. What it sets wins over the other options. It must not be in the Nix store.
    '';
  };

  registryAuthFile = mkOption {
    type = secretFile;
    default = null;
    example = "/run/secrets/registry-auth.json";
    description = "Credentials for registries, as `docker login` and `podman login` write them, when the cache is private.";
  };

  indexTtl = mkOption {
    type = types.ints.between 1 86400;
    default = 300;
    description = "Seconds between two looks for what was published meanwhile.";
  };

  narCache = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to keep on disk what clients have fetched: for other clients, and for when the registry is down.";
    };
    directory = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/data/nixcache";
      description = "The folder that it is kept in. By default one below the service's own cache folder.";
    };
    size = mkOption {
      type = size;
      default = "20G";
      description = "How large it may grow.";
    };
  };

  writable = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether to take uploads (`nix copy --to`) and commit them to the first cache. Clients need a token unless this
      machine alone can connect.
    '';
  };

  signingKeyFile = mkOption {
    type = secretFile;
    default = null;
    example = "/run/secrets/nixcache.key";
    description = "The secret key that uploads are signed with.";
  };

  writeTokenFile = mkOption {
    type = secretFile;
    default = null;
    example = "/run/secrets/nixcache-write-token";
    description = "A file with the token that uploads need.";
  };

  journalSize = mkOption {
    type = size;
    default = "20G";
    description = "How much room uploads may take until they are committed; beyond it they are refused.";
  };

  logLevel = mkOption {
    type = types.enum [
      "error"
      "warn"
      "info"
      "access"
    ];
    default = "info";
    description = "What is logged; `access` is a line for each request.";
  };

  extraArguments = mkOption {
    type = types.listOf types.str;
    default = [ ];
    example = [
      "--connections"
      "8"
    ];
    description = "Further arguments for `nixcache serve`.";
  };
}
// lib.optionalAttrs (platform == "nixos") {
  openFirewall = mkOption {
    type = types.bool;
    default = false;
    description = "Whether to open the port in the firewall, for a server that others use.";
  };

  metrics = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether the Prometheus of this machine (`services.prometheus`) collects the server's metrics. Any other Prometheus
      can: they are at `/metrics` always.
    '';
  };
}
