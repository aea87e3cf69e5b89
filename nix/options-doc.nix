# The options as data, for scripts/options-doc.ts: name, type, default, example, description, and which module has it.
{ lib }:
let
  platforms = {
    nixos = "NixOS";
    darwin = "nix-darwin";
    home = "home-manager";
  };
  optionsOf =
    platform:
    import ./modules/options.nix {
      inherit lib platform;
      package = throw "the documentation needs no package";
    };

  # Texts are Nix already; values are written as Nix by the script.
  valueOf =
    value: if builtins.isAttrs value && value ? _type then { inherit (value) text; } else { inherit value; };

  flatten =
    prefix: options:
    builtins.concatLists (
      map (
        name:
        let
          option = options.${name};
          path = if prefix == "" then name else "${prefix}.${name}";
        in
        if option._type or "" == "option" then
          [
            (
              {
                name = path;
                type = option.type.description;
                inherit (option) description;
                default = valueOf (option.defaultText or option.default);
              }
              // (if option ? example then { example = valueOf option.example; } else { })
            )
          ]
        else
          flatten path option
      ) (builtins.attrNames options)
    );

  all = builtins.mapAttrs (platform: _title: flatten "" (optionsOf platform)) platforms;
in
map (
  option:
  option
  // {
    modules = map (platform: platforms.${platform}) (
      builtins.filter (platform: builtins.any ({ name, ... }: name == option.name) all.${platform}) (
        builtins.attrNames platforms
      )
    );
  }
) all.nixos
