# What this repository's cache holds: every output below is built and published when main moves.
{
  description = "My packages, shells and hosts";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { nixpkgs, ... }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAllSystems = f: nixpkgs.lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
    in
    {
      # Packages: what cache.nixos.org has is not uploaded again, so list whatever you use.
      packages = forAllSystems (pkgs: {
        hello-cache = pkgs.writeShellScriptBin "hello-cache" ''
          echo "This came out of my own cache."
        '';
      });

      # Shells: what `nix develop` needs, ready to download.
      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell { packages = [ pkgs.git ]; };
      });

      # Hosts: whole systems. Name yours and point it at its configuration.
      # nixosConfigurations.my-host = nixpkgs.lib.nixosSystem {
      #   system = "x86_64-linux";
      #   modules = [ ./my-host.nix ];
      # };
    };
}
