# services.nixcache-proxy for home-manager: a user's own service, by systemd or launchd.
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
  systemd = import ./systemd.nix { inherit lib; };
  launchd = import ./launchd.nix { inherit lib; };
  inherit (pkgs.stdenv.hostPlatform) isDarwin isLinux;

  folders = {
    cache = "${config.xdg.cacheHome}/nixcache-proxy";
    state = "${config.xdg.stateHome}/nixcache-proxy";
  };
  authorities = config.home.sessionVariables.NIX_SSL_CERT_FILE or null;
  environment =
    service.environment folders
    # The shell would expand it.
    // lib.optionalAttrs (authorities != null && !lib.hasInfix "$" authorities) { NIX_SSL_CERT_FILE = authorities; };
  command = [ "${cfg.package}/bin/nixcache" ] ++ service.arguments;
in
{
  options.services.nixcache-proxy = import ./options.nix {
    inherit lib;
    platform = "home";
    package = packageFor pkgs;
  };

  config = lib.mkIf cfg.enable {
    assertions = import ./assertions.nix {
      inherit lib cfg;
      platform = "home";
    };

    # A user's nix.conf comes after the system's, whose substituters and keys stay with extra-. The daemon takes these
    # two from trusted users alone.
    nix.settings = lib.mkIf cfg.configureNix {
      extra-substituters = [ service.substituter ];
      extra-trusted-public-keys = service.keys;
      # Else Nix fails every build while a cache that it knows does not answer.
      fallback = lib.mkDefault true;
    };

    systemd.user.services.nixcache-proxy = lib.mkIf isLinux {
      Unit = {
        Description = "Nix binary cache from a container registry";
        StartLimitIntervalSec = 0;
      };
      Service = systemd.restricted // {
        Type = "notify";
        ExecStart = systemd.command command;
        Environment = lib.mapAttrsToList (
          variable: value: systemd.escapeSpecifiers (builtins.toJSON "${variable}=${value}")
        ) environment;
        EnvironmentFile = lib.mkIf (cfg.environmentFile != null) (
          systemd.escapeSpecifiers (toString cfg.environmentFile)
        );
        Restart = "always";
        RestartSec = 1;
        RestartPreventExitStatus = "2 4 5";
        SuccessExitStatus = 130;
        TimeoutStartSec = 30;
        TimeoutStopSec = 30;
        MemoryMax = lib.mkDefault "1G";
      };
      Install.WantedBy = [ "default.target" ];
    };

    launchd.agents.nixcache-proxy = lib.mkIf isDarwin {
      enable = true;
      config = launchd.job // {
        ProgramArguments = launchd.programArguments cfg.environmentFile command;
        EnvironmentVariables = environment;
        StandardOutPath = "${config.home.homeDirectory}/Library/Logs/nixcache-proxy.log";
        StandardErrorPath = "${config.home.homeDirectory}/Library/Logs/nixcache-proxy.log";
      };
    };
  };
}
