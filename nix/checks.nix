# What `nix flake check` builds. The tests are not among it: `bun run test` runs them, with programs, users and a
# network that the sandbox does not have.
{
  pkgs,
  package,
  module,
}:
let
  inherit (pkgs) lib stdenv;
  nodeModules = pkgs.callPackage ./node-modules.nix { dev = true; };

  types =
    pkgs.runCommand "nixcache-types"
      {
        nativeBuildInputs = [ (pkgs.callPackage ./bun.nix { }) ];
        src = import ./source.nix (
          [
            "package.json"
            "tsconfig.json"
          ]
          ++ (builtins.fromJSON (builtins.readFile ../tsconfig.json)).include
        );
      }
      ''
        export HOME=$TMPDIR
        cp -R $src source
        chmod -R u+w source
        cd source
        cp -R ${nodeModules}/node_modules node_modules
        bun node_modules/typescript/bin/tsc --noEmit
        bun node_modules/typescript/bin/tsc --noEmit --project src/serve/page/client
        touch $out
      '';

  # The unit as the real NixOS writes it.
  host = pkgs.nixos {
    imports = [ module ];
    services.nixcache-proxy = {
      enable = true;
      inherit package;
      repo = "OWNER/REPO";
      requireSignatures = false;
    };
    system.stateVersion = lib.trivial.release;
  };
in
{
  inherit package types;
}
// lib.optionalAttrs stdenv.hostPlatform.isLinux {
  nixos-unit = host.config.systemd.units."nixcache-proxy.service".unit;
  vm = import ./vm-test.nix { inherit pkgs package module; };
}
