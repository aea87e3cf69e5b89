# services.nixcache-proxy for nix-darwin.
{ packageFor }:
import ./head.nix {
  inherit packageFor;
  platform = "darwin";
} (
  {
    config,
    lib,
    cfg,
    service,
    ...
  }:
  let
    launchd = import ./launchd.nix { inherit lib; };
    user = "_nixcache-proxy";
    home = "/var/lib/nixcache-proxy";
    authorities = config.environment.variables.NIX_SSL_CERT_FILE or null;
  in
  {
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
  }
)
