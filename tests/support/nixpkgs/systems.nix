# Doubles of NixOS, nix-darwin and home-manager: those of their options that the modules set or read, with their types
# and the values that they have by themselves.
{ lib }:
let
  inherit (lib) mkOption types;
  option = type: default: mkOption { inherit type default; };
  list = option (types.listOf types.anything) [ ];
  set = option (types.attrsOf types.anything) { };
  text = value: option types.str value;
  settings = {
    substituters = option (types.listOf types.str) [ ];
    trusted-public-keys = option (types.listOf types.str) [ ];
    fallback = option types.bool false;
  };
  # As nixos/modules/config/nix.nix and nix-darwin's modules/nix/default.nix have it.
  own.nix.settings = {
    substituters = lib.mkAfter [ "https://cache.nixos.org/" ];
    trusted-public-keys = [ "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=" ];
  };
in
{
  nixos = {
    options = {
      assertions = list;
      warnings = option (types.listOf types.str) [ ];
      nix = {
        enable = option types.bool true;
        inherit settings;
      };
      security.pki.installCACerts = option types.bool true;
      security.pki.caBundle = text "/nix/store/authorities/ca-bundle.crt";
      networking.firewall.allowedTCPPorts = option (types.listOf types.port) [ ];
      networking.proxy.envVars = set;
      services.prometheus.enable = option types.bool false;
      services.prometheus.scrapeConfigs = list;
      users.users = set;
      users.groups = set;
      systemd.tmpfiles.rules = option (types.listOf types.str) [ ];
      systemd.services = set;
    };
    config = own;
  };

  darwin = {
    options = {
      assertions = list;
      warnings = option (types.listOf types.str) [ ];
      nix = {
        enable = option types.bool true;
        inherit settings;
      };
      environment.variables = option (types.attrsOf types.anything) {
        NIX_SSL_CERT_FILE = "/etc/ssl/certs/ca-certificates.crt";
      };
      users.users = set;
      users.groups = set;
      users.knownUsers = option (types.listOf types.str) [ ];
      users.knownGroups = option (types.listOf types.str) [ ];
      launchd.daemons = set;
    };
    config = own;
  };

  home = {
    options = {
      assertions = list;
      warnings = option (types.listOf types.str) [ ];
      nix.enable = option types.bool true;
      nix.package = option (types.nullOr types.package) null;
      nix.settings = set;
      home.homeDirectory = text "/home/me";
      home.sessionVariables = set;
      xdg.cacheHome = text "/home/me/.cache";
      xdg.stateHome = text "/home/me/.local/state";
      systemd.user.services = set;
      launchd.agents = set;
    };
    # As home-manager's modules/misc/nix.nix has it, whose generated nix.conf is checked by that Nix.
    imports = [
      (
        { config, ... }:
        {
          config.assertions = [
            {
              assertion = config.nix.settings == { } || config.nix.package != null;
              message = "A corresponding Nix package must be specified via `nix.package` for generating nix.conf.";
            }
          ];
        }
      )
    ];
  };
}
