# A double of nixpkgs' packages: the few that nix/ uses, and a stdenv that runs the phases of a derivation with the
# machine's own bash and core utilities, one after the other and nothing in between. What the real one refuses it
# refuses, too.
{
  system ? builtins.currentSystem,
  # As of nixpkgs: a system that has been dropped is an error from then on.
  release ? "26.11",
  # A machine to build on that is not the one to build for.
  buildSystem ? system,
  # A store path with bin/bun of that version. Without one, nothing can be built.
  bun ? null,
  bunVersion ? "1.4.5",
  # What comes of a repository on GitHub.
  checkout ? throw "no network",
  # A folder of npm's tarballs, by the last part of their URL, in the place of what fetchurl downloads.
  tarballs ? null,
}:
let
  lib = import ./lib.nix // {
    trivial = { inherit release; };
  };
  isDarwin = builtins.match ".*-darwin" system != null;

  platformOf = system: {
    inherit system isDarwin;
    config = builtins.replaceStrings [ "-linux" "-darwin" ] [ "-unknown-linux-gnu" "-apple-darwin" ] system;
    isLinux = !isDarwin;
    isMusl = false;
    isAarch64 = builtins.match "aarch64-.*" system != null;
    canExecute = other: other.system == system;
  };
  platform = platformOf system;

  # Phases that are not given are empty, but unpackPhase.
  setup = ''
    set -eu
    runHook() { :; }
    # As installShellFiles and versionCheckHook do it.
    installShellCompletion() {
      local name=$2
      shift 2
      while [ $# -gt 0 ]; do
        case "$1" in
          --bash) install -D -m 644 "$2" "$out/share/bash-completion/completions/$name.bash" ;;
          --zsh) install -D -m 644 "$2" "$out/share/zsh/site-functions/_$name" ;;
          --fish) install -D -m 644 "$2" "$out/share/fish/vendor_completions.d/$name.fish" ;;
          *) exit 1 ;;
        esac
        shift 2
      done
    }
    installManPage() { install -D -m 644 "$1" "$out/share/man/man''${1##*.}/$1"; }
    versionCheck() { "$out/bin/$pname" --version | grep -wF "$version"; }
    export PATH="$(for input in $nativeBuildInputs; do printf '%s/bin:' "$input"; done)/usr/bin:/bin"
    export TMPDIR="$PWD" HOME=/homeless-shelter
    if [ -z "''${dontUnpack-}" ] && [ -n "''${src-}" ]; then
      cp -R "$src" source
      chmod -R u+w source
      cd source
    fi
    [ -n "''${dontBuild-}" ] || eval "''${buildPhase-}"
    eval "''${installPhase-}"
    [ -z "''${doInstallCheck-}" ] || eval "''${installCheckPhase-}" "''${nativeInstallCheckInputs:+versionCheck}"
  '';

  # An attribute that is no text for the builder is refused in `env`, and beside it with __structuredAttrs, as there.
  mkDerivation =
    given:
    let
      attributes = if builtins.isFunction given then given (attributes // { finalPackage = built; }) else given;
      passthru = attributes.passthru or { };
      isStructured = attributes.__structuredAttrs or false;
      env = attributes.env or { };
      built = derivationOf attributes isStructured env // {
        inherit passthru;
        meta = attributes.meta or { };
        pname = attributes.pname or attributes.name;
      };
    in
    assert builtins.all (value: builtins.isString value || value ? outPath) (builtins.attrValues env);
    assert !isStructured || !(attributes ? disallowedReferences);
    built;

  derivationOf =
    attributes: isStructured: env:
    derivation (
      removeAttrs attributes [
        "meta"
        "passthru"
        "env"
        "__structuredAttrs"
        "outputChecks"
      ]
      // env
      // lib.optionalAttrs isStructured {
        disallowedReferences = attributes.outputChecks.out.disallowedReferences or [ ];
      }
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
    );

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
    buildPlatform = platformOf buildSystem;
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
      "installShellFiles"
      "nginx"
      "nix"
      "openssl"
      "patchelf"
      "skopeo"
      "systemd"
      "versionCheckHook"
      "writableTmpDirAsHomeHook"
      "xz"
      "zstd"
    ] tool
    // {
      inherit lib stdenv pkgs;
      # nixpkgs has some 100,000 names, and callPackage fills in whatever an argument is called.
      commit = throw "the package commit, a graphical editor";
      date = throw "a package called date";
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

      fetchFromGitHub =
        {
          owner,
          repo,
          tag,
          hash,
        }:
        {
          outPath = checkout;
          inherit owner repo tag;
        };
      nix-update-script = { extraArgs }: extraArgs;

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
      testers.testVersion = { package }: package;
      testers.runNixOSTest =
        test:
        mkDerivation {
          name = "vm-test-run-${test.name}";
          inherit (test) testScript;
          installPhase = "exit 1";
        };
    };
in
if system == "x86_64-darwin" && !lib.versionOlder release "26.11" then
  throw "Nixpkgs ${release} has dropped support for x86_64-darwin."
else
  pkgs
