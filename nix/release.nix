# nixcache as it was released. release.json is written by the release workflow; see scripts/nix-release.ts.
{
  lib,
  stdenv,
  fetchurl,
  patchelf,
}:
let
  release = builtins.fromJSON (builtins.readFile ./release.json);
  inherit (stdenv.hostPlatform) system isLinux isMusl;
in
if isMusl || !(release.systems ? ${system}) then
  throw "nixcache-bin: there is no release for ${system}${lib.optionalString isMusl " with musl"}; take the package nixcache, which is built from source"
else
  stdenv.mkDerivation {
    pname = "nixcache-bin";
    inherit (release) version;
    src = fetchurl { inherit (release.systems.${system}) url sha256; };
    sourceRoot = ".";

    nativeBuildInputs = lib.optional isLinux patchelf;
    dontConfigure = true;
    dontBuild = true;
    # The interpreter alone: it finds the C library, and nothing else is linked. More than that moves what is in the
    # file, which breaks it, and so does strip.
    installPhase = ''
      runHook preInstall
      install -D -m 755 nixcache $out/bin/nixcache
      install -D -m 644 LICENSE $out/share/doc/nixcache/LICENSE
      install -D -m 644 completions/nixcache.bash $out/share/bash-completion/completions/nixcache.bash
      install -D -m 644 completions/_nixcache $out/share/zsh/site-functions/_nixcache
      install -D -m 644 completions/nixcache.fish $out/share/fish/vendor_completions.d/nixcache.fish
      install -D -m 644 man/nixcache.1 $out/share/man/man1/nixcache.1
      ${lib.optionalString isLinux "patchelf --set-interpreter ${stdenv.cc.bintools.dynamicLinker} $out/bin/nixcache"}
      runHook postInstall
    '';
    dontStrip = true;
    dontPatchELF = true;

    doInstallCheck = stdenv.buildPlatform.canExecute stdenv.hostPlatform;
    installCheckPhase = ''
      runHook preInstallCheck
      $out/bin/nixcache --version | grep -F "nixcache ${release.version} ("
      runHook postInstallCheck
    '';

    meta = {
      description = "Turns any GitHub repository into a Nix binary cache";
      license = lib.licenses.mit;
      mainProgram = "nixcache";
      platforms = builtins.attrNames release.systems;
      sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
    };
  }
