# services.nixcache-proxy for nix-darwin.
{ packageFor }:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nixcache-proxy;
  service = import ./service.nix { inherit lib cfg; };
  launchd = import ./launchd.nix { inherit lib; };
  user = "_nixcache-proxy";
  home = "/var/lib/nixcache-proxy";
  authorities = config.environment.variables.NIX_SSL_CERT_FILE or null;
in
{
  options.services.nixcache-proxy = import ./options.nix {
    inherit lib;
    platform = "darwin";
    package = packageFor pkgs;
  };

  config = lib.mkIf cfg.enable {
    assertions = import ./assertions.nix {
      inherit lib cfg;
      platform = "darwin";
    };

    # Where something else than nix-darwin manages Nix, its configuration has to be written there.
    nix.settings = lib.mkIf (cfg.configureNix && config.nix.enable) {
      substituters = lib.mkBefore [ service.substituter ];
      trusted-public-keys = service.keys;
      # Else Nix fails every build while a cache that it knows does not answer.
      fallback = lib.mkDefault true;
    };

    users = {
      users.${user} = {
        # Below 500 it is no person's; 351 to 382 are Nix's own builders.
        uid = lib.mkDefault 431;
        gid = lib.mkDefault config.users.groups.${user}.gid;
        inherit home;
        createHome = true;
        shell = "/usr/bin/false";
        description = "nixcache";
      };
      groups.${user}.gid = lib.mkDefault 431;
      knownUsers = [ user ];
      knownGroups = [ user ];
    };

    launchd.daemons.nixcache-proxy.serviceConfig = launchd.job // {
      ProgramArguments = launchd.programArguments cfg.environmentFile (
        [ "${cfg.package}/bin/nixcache" ] ++ service.arguments
      );
      EnvironmentVariables =
        service.environment {
          cache = "${home}/cache";
          state = "${home}/state";
        }
        // lib.optionalAttrs (authorities != null) { NIX_SSL_CERT_FILE = authorities; };
      UserName = user;
      GroupName = user;
      WorkingDirectory = home;
      StandardOutPath = "${home}/nixcache-proxy.log";
      StandardErrorPath = "${home}/nixcache-proxy.log";
    };
  };
}
