{
  description = "A double of nixpkgs, for `--override-input nixpkgs path:…`";
  outputs = _: {
    lib = import ./lib.nix;
    legacyPackages = (import ./lib.nix).genAttrs [
      "x86_64-linux"
      "aarch64-linux"
      "x86_64-darwin"
      "aarch64-darwin"
    ] (system: import ./. { inherit system; });
  };
}
