# What a configuration comes to: what it sets, and the sentences of the assertions that fail.
{
  lib,
  # "nixos", "darwin" or "home".
  platform,
  system,
  # A module, or a list of them.
  configuration,
  # As of nixpkgs.
  release ? "26.11",
}:
let
  pkgs = import ./. { inherit system release; };
  package = {
    type = "derivation";
    name = "nixcache";
    outPath = "/nix/store/nixcache";
  };
  modules = import ../../../nix/modules { packageFor = _pkgs: package; };
  host = (import ./systems.nix { inherit lib; }).${platform};
  inherit
    (lib.evalModules {
      specialArgs = { inherit pkgs; };
      modules = [
        modules.${platform}
        # Twice, as when a configuration and one of its modules both import it.
        modules.${platform}
        host
      ]
      ++ (if builtins.isList configuration then configuration else [ configuration ]);
    })
    config
    ;
in
builtins.removeAttrs config [
  "assertions"
  "services"
  "environment"
  "home"
  "xdg"
]
// {
  scrapeConfigs = config.services.prometheus.scrapeConfigs or [ ];
  failed = map ({ message, ... }: message) (builtins.filter ({ assertion, ... }: !assertion) config.assertions);
}
