# A double of nixpkgs' packages: the few that nix/ uses, and a stdenv that runs the phases of a derivation with the
# machine's own bash and core utilities, one after the other and nothing in between.
{
  system ? builtins.currentSystem,
  # A store path with bin/bun of that version. Without one, nothing can be built.
  bun ? null,
  bunVersion ? "1.4.5",
  # A folder of npm's tarballs, by the last part of their URL, in the place of what fetchurl downloads.
  tarballs ? null,
}:
let
  lib = import ./lib.nix;
  isDarwin = builtins.match ".*-darwin" system != null;

  platform = {
    inherit system isDarwin;
    isLinux = !isDarwin;
    isMusl = false;
    isAarch64 = builtins.match "aarch64-.*" system != null;
    canExecute = _other: true;
  };

  # Phases that are not given are empty, but unpackPhase.
  setup = ''
    set -eu
    runHook() { :; }
    export PATH="$(for input in $nativeBuildInputs; do printf '%s/bin:' "$input"; done)/usr/bin:/bin"
    export TMPDIR="$PWD" HOME=/homeless-shelter
    if [ -z "''${dontUnpack-}" ] && [ -n "''${src-}" ]; then
      cp -R "$src" source
      chmod -R u+w source
      cd source
    fi
    [ -n "''${dontBuild-}" ] || eval "''${buildPhase-}"
    eval "''${installPhase-}"
    [ -z "''${doInstallCheck-}" ] || eval "''${installCheckPhase-}"
  '';

  mkDerivation =
    attributes:
    derivation (
      removeAttrs attributes [ "meta" ]
      // {
        inherit system;
        name = attributes.name or "${attributes.pname}-${attributes.version}";
        nativeBuildInputs = attributes.nativeBuildInputs or [ ];
        builder = "/bin/bash";
        args = [
          "-c"
          setup
        ];
      }
    )
    // {
      meta = attributes.meta or { };
      pname = attributes.pname or attributes.name;
    };

  # Nothing of its own: the machine's program is found instead, where there is one.
  tool =
    name:
    mkDerivation {
      inherit name;
      installPhase = "mkdir -p $out/bin";
    };

  stdenv = {
    inherit mkDerivation;
    hostPlatform = platform;
    buildPlatform = platform;
    cc.bintools.dynamicLinker = "/lib64/ld-linux-x86-64.so.2";
  };

  pkgs =
    lib.genAttrs [
      "biome"
      "chromium"
      "curl"
      "distribution"
      "git"
      "gitMinimal"
      "nginx"
      "nix"
      "openssl"
      "patchelf"
      "skopeo"
      "systemd"
      "xz"
      "zstd"
    ] tool
    // {
      inherit lib stdenv pkgs;
      stdenvNoCC = stdenv;
      callPackage =
        file: given:
        let
          f = import file;
        in
        f (builtins.intersectAttrs (builtins.functionArgs f) pkgs // given);

      bun = (if bun == null then tool "bun" else { outPath = bun; }) // {
        version = bunVersion;
      };

      # As Nix's own <nix/fetchurl.nix>, which needs no program.
      fetchurl =
        {
          url,
          hash ? "",
          sha256 ? "",
        }:
        if tarballs != null then
          "${tarballs}/${baseNameOf url}"
        else
          derivation {
            inherit url;
            urls = [ url ];
            name = baseNameOf url;
            system = "builtin";
            builder = "builtin:fetchurl";
            outputHashMode = "flat";
            outputHashAlgo = if hash == "" then "sha256" else null;
            outputHash = hash + sha256;
            executable = false;
            unpack = false;
          };

      writeShellScript =
        name: text:
        mkDerivation {
          inherit name text;
          installPhase = ''printf '#!/bin/sh\n%s\n' "$text" > $out; chmod +x $out'';
        };
      runCommand =
        name: attributes: script:
        mkDerivation (
          {
            inherit name;
            dontUnpack = true;
            installPhase = script;
          }
          // attributes
        );
      mkShell =
        { packages, ... }@attributes:
        mkDerivation (
          removeAttrs attributes [ "packages" ]
          // {
            name = "shell";
            nativeBuildInputs = packages;
            installPhase = "touch $out";
          }
        );

      # Only what the configuration sets is known, and the test of a machine is not run.
      nixos = configuration: {
        config.systemd.units."nixcache-proxy.service".unit = mkDerivation {
          name = "unit-nixcache-proxy.service";
          installPhase = "touch $out";
        };
      };
      testers.runNixOSTest =
        test:
        mkDerivation {
          name = "vm-test-run-${test.name}";
          inherit (test) testScript;
          installPhase = "exit 1";
        };
    };
in
pkgs
