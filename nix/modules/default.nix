# The modules, each a value that may be imported more than once. `packageFor` takes the configuration's pkgs.
{ packageFor }:
let
  module = file: {
    _file = toString file;
    key = toString file;
    imports = [ (import file { inherit packageFor; }) ];
  };
in
{
  nixos = module ./nixos.nix;
  darwin = module ./darwin.nix;
  home = module ./home.nix;
}
