# services.nixcache-proxy for NixOS.
{ packageFor }:
import ./head.nix {
  inherit packageFor;
  platform = "nixos";
} (
  {
    config,
    lib,
    cfg,
    service,
    ...
  }:
  let
    systemd = import ./systemd.nix { inherit lib; };
    name = "nixcache-proxy";
    folders = {
      cache = "/var/cache/${name}";
      state = "/var/lib/${name}";
    };

    # Folders elsewhere that the service writes to. They need an owner that stays the same, which a dynamic user is not.
    first = service.folderOf (lib.head service.references);
    ownFolders =
      lib.optional (cfg.narCache.enable && cfg.narCache.directory != null) (toString cfg.narCache.directory)
      ++ lib.optional (cfg.writable && service.references != [ ] && first != null) first;

    isPrivileged = cfg.port < 1024;
  in
  {
    assertions = [
      {
        assertion = cfg.metrics -> config.services.prometheus.enable;
        message = "services.nixcache-proxy: metrics is for the Prometheus of this machine. Set services.prometheus.enable = true, or let another one read http://${service.address}/metrics.";
      }
    ];

    networking.firewall.allowedTCPPorts = lib.mkIf cfg.openFirewall [ cfg.port ];

    services.prometheus.scrapeConfigs = lib.mkIf cfg.metrics [
      {
        job_name = name;
        static_configs = [ { targets = [ service.address ]; } ];
      }
    ];

    users = lib.mkIf (ownFolders != [ ]) {
      users.${name} = {
        isSystemUser = true;
        group = name;
      };
      groups.${name} = { };
    };
    systemd.tmpfiles.rules = map (folder: "d ${systemd.escapePath folder} 0750 ${name} ${name} -") ownFolders;

    systemd.services.${name} = {
      description = "Nix binary cache from a container registry";
      # Nothing waits for it, and it waits for nothing. Not for network-online.target: an unreachable registry is asked
      # again within seconds, and the boot would hang on a machine that is offline. Not before nix-daemon, in whichever
      # direction: Nix does without a substituter, and what is started by a rebuild must not wait for Nix, nor Nix for it.
      wantedBy = [ "multi-user.target" ];
      after = [ "network.target" ];
      # One restart once the new configuration is in place. Between a stop and a start the activation would run without it.
      stopIfChanged = false;
      restartTriggers = [ config.security.pki.caBundle ];
      # However long it fails: Nix tries for 4.5 s before it gives a substituter up.
      startLimitIntervalSec = 0;

      environment =
        config.networking.proxy.envVars
        // lib.mapAttrs (_variable: systemd.escapeSpecifiers) (
          service.environment folders // { NIX_SSL_CERT_FILE = toString config.security.pki.caBundle; }
        )
        # Files that only root can read are handed over as credentials, named by the variable that says where they are.
        // lib.mapAttrs (variable: _path: "%d/${variable}") service.secretFiles;

      serviceConfig =
        systemd.hardened
        // {
          Type = "notify";
          ExecStart = systemd.command ([ "${cfg.package}/bin/nixcache" ] ++ service.arguments);
          Restart = "always";
          RestartSec = 1;
          # Wrong usage, a key that is none, no cache reference: it would be the same at the next start.
          RestartPreventExitStatus = "2 4 5";
          # Transfers had to be cut when it was stopped.
          SuccessExitStatus = 130;
          # It says that it is ready at most 5 s after it listens, with or without the registry.
          TimeoutStartSec = 30;
          TimeoutStopSec = 30;
          MemoryMax = lib.mkDefault "1G";

          DynamicUser = ownFolders == [ ];
          User = name;
          Group = name;
          CacheDirectory = [
            name
            "${name}/tmp"
          ];
          CacheDirectoryMode = "0700";
          ReadWritePaths = map systemd.escapePath ownFolders;
          EnvironmentFile = lib.mkIf (cfg.environmentFile != null) (
            systemd.escapeSpecifiers (toString cfg.environmentFile)
          );
          LoadCredential = lib.mapAttrsToList (
            variable: path: "${variable}:${systemd.escapeSpecifiers path}"
          ) service.secretFiles;

          PrivateUsers = !isPrivileged;
          CapabilityBoundingSet = if isPrivileged then "CAP_NET_BIND_SERVICE" else "";
          AmbientCapabilities = if isPrivileged then "CAP_NET_BIND_SERVICE" else "";
        }
        // lib.optionalAttrs cfg.writable {
          StateDirectory = name;
          StateDirectoryMode = "0700";
        };
    };
  }
)
