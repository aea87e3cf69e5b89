# What the three modules have in common: the options, what is refused, and what Nix is told. `rest` is the service, as the
# platform has it.
{
  packageFor,
  # "nixos", "darwin" or "home".
  platform,
}:
rest:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.nixcache-proxy;
  service = import ./service.nix { inherit lib cfg; };
  # Without it nothing writes nix.conf: on macOS mostly because Determinate's daemon does.
  writesNixConf = config.nix.enable or true;
  # A user's nix.conf comes after the system's, whose substituters and keys stay with extra-. The daemon takes these two
  # from trusted users alone.
  extra = lib.optionalString (platform == "home") "extra-";
in
{
  options.services.nixcache-proxy = import ./options.nix {
    inherit lib platform;
    package = packageFor pkgs;
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      {
        assertions = import ./assertions.nix { inherit lib cfg platform; };

        warnings = lib.optional (cfg.configureNix && !writesNixConf) ''
          services.nixcache-proxy: nix.enable is false, so this configuration does not write nix.conf, and Nix does not use the server. Set configureNix = false, and write there yourself:
            extra-substituters = ${service.substituter}
            extra-trusted-public-keys = ${lib.concatStringsSep " " service.keys}
            fallback = true
        '';

        nix.settings = lib.mkIf (cfg.configureNix && writesNixConf) {
          # cache.nixos.org stays in the list, behind.
          "${extra}substituters" = lib.mkBefore [ service.substituter ];
          "${extra}trusted-public-keys" = service.keys;
          # Else Nix fails every build while a cache that it knows does not answer.
          fallback = lib.mkDefault true;
        };
      }
      (rest {
        inherit
          config
          lib
          pkgs
          cfg
          service
          ;
      })
    ]
  );
}
