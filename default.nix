# Everything of flake.nix for one system, without flakes: `nix-build -A default`, or in a configuration
#   imports = [ (import (fetchTarball "https://…") { }).nixosModules.default ];
{
  pkgs ? import <nixpkgs> { },
  # For `nixcache --version` and the man page: 12 digits, and the day, such as "2026-11-23".
  commit ? null,
  date ? null,
}:
let
  packageFor = pkgs: pkgs.callPackage ./nix/package.nix { nixcacheBuild = { inherit commit date; }; };
  # Without a release there is none, and nothing that evaluates every attribute meets an error.
  release = builtins.fromJSON (builtins.readFile ./nix/release.json);
  binFor =
    pkgs:
    pkgs.lib.optionalAttrs (release.systems ? ${pkgs.stdenv.hostPlatform.system}) {
      nixcache-bin = pkgs.callPackage ./nix/release.nix { };
    };
  package = packageFor pkgs;
  modules = import ./nix/modules { inherit packageFor; };
  app = program: {
    type = "app";
    inherit program;
    meta.description = "Turns any GitHub repository into a Nix binary cache";
  };
in
{
  # What a plain `nix-build` builds; it does not look into the sets below.
  default = package;

  packages = {
    default = package;
    nixcache = package;
  }
  // binFor pkgs;

  apps = {
    default = app "${package}/bin/nixcache";
    # As users of cmspam/nixcache-oci run it.
    cache-proxy = app "${pkgs.writeShellScript "cache-proxy" ''exec ${package}/bin/nixcache serve "$@"''}";
  };

  devShells.default = pkgs.callPackage ./nix/dev-shell.nix { };

  checks = import ./nix/checks.nix {
    inherit pkgs package;
    module = modules.nixos;
  };

  overlays.default =
    final: _prev:
    # Which names an overlay has must not depend on the packages that it adds to.
    {
      nixcache = packageFor final;
    }
    // (if release.version == null then { } else { nixcache-bin = final.callPackage ./nix/release.nix { }; });

  nixosModules.default = modules.nixos;
  darwinModules.default = modules.darwin;
  homeModules.default = modules.home;
  # The name that home-manager's own documentation used first.
  homeManagerModules.default = modules.home;
}
