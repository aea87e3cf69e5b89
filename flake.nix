{
  description = "Turns any GitHub repository into a Nix binary cache";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ]
      # nixpkgs 26.11 refuses it by an error, which would end every command that looks at all systems.
      ++ nixpkgs.lib.optional (nixpkgs.lib.versionOlder nixpkgs.lib.trivial.release "26.11") "x86_64-darwin";
      # 12 digits, and "-dirty" behind them when files differ from the commit.
      commit =
        if self ? rev then
          builtins.substring 0 12 self.rev
        else if self ? dirtyRev then
          "${builtins.substring 0 12 self.dirtyRev}-dirty"
        else
          null;
      date =
        let
          part = builtins.substring;
          text = self.lastModifiedDate or "";
        in
        if text == "" then null else "${part 0 4 text}-${part 4 2 text}-${part 6 2 text}";
      # One value for each system, from which the outputs take their parts.
      for = nixpkgs.lib.genAttrs systems (
        system:
        import ./default.nix {
          pkgs = nixpkgs.legacyPackages.${system};
          inherit commit date;
        }
      );
      each = output: builtins.mapAttrs (_system: all: all.${output}) for;

      # The package of this flake's own nixpkgs, which is the one that was tested.
      modules = import ./nix/modules {
        packageFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.default;
      };
    in
    {
      packages = each "packages";
      apps = each "apps";
      devShells = each "devShells";
      checks = each "checks";

      overlays = (import ./default.nix { pkgs = null; inherit commit date; }).overlays;

      nixosModules.default = modules.nixos;
      darwinModules.default = modules.darwin;
      homeModules.default = modules.home;
      homeManagerModules.default = modules.home;
    };
}
