# services.nixcache-proxy for home-manager: a user's own service, by systemd or launchd.
{ packageFor }:
import ./head.nix {
  inherit packageFor;
  platform = "home";
} (
  {
    config,
    lib,
    cfg,
    service,
    pkgs,
    ...
  }:
  let
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
  }
)
