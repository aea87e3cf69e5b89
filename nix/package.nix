# nixcache from source. The sandbox has no network: what is needed from npm comes by fixed-output fetches.
{
  lib,
  stdenv,
  bun,
  callPackage,
  # 12 hexadecimal digits, for `nixcache --version`, and the day of that commit, for the man page: "2026-11-23".
  commit ? null,
  date ? null,
}:
let
  manifest = builtins.fromJSON (builtins.readFile ../package.json);
  release = builtins.fromJSON (builtins.readFile ./release.json);
  nodeModules = callPackage ./node-modules.nix { };
  orEmpty = text: if text == null then "" else text;
  # Where releases are, for the workflows that `nixcache init` writes.
  repository =
    if release.version == null then
      null
    else
      builtins.match "https://github.com/([^/]+/[^/]+)/.*" release.systems.x86_64-linux.url;
in
# The flags of scripts/build.ts are those of 1.4.
if lib.versionOlder bun.version "1.4" then
  throw "nixcache needs bun 1.4 or newer to be built, and this nixpkgs has ${bun.version}: take a newer nixpkgs, or the package nixcache-bin"
else
  stdenv.mkDerivation {
    pname = "nixcache";
    inherit (manifest) version;

    src = import ./source.nix [
      ".github/workflows"
      "LICENSE"
      "bun.lock"
      "bunfig.toml"
      "config/flake.nix"
      "package.json"
      "scripts/build.ts"
      "scripts/macho.ts"
      "scripts/process.ts"
      "src"
      "tsconfig.json"
    ];

    nativeBuildInputs = [ bun ];
    NIXCACHE_COMMIT = if commit == null then "unknown" else commit;
    NIXCACHE_DATE = orEmpty date;
    NIXCACHE_REPOSITORY = if repository == null then "" else builtins.head repository;

    dontConfigure = true;
    buildPhase = ''
      runHook preBuild
      export HOME=$TMPDIR
      # Not a link: the executable would name the store path, and so keep it alive.
      cp -R ${nodeModules}/node_modules node_modules
      bun scripts/build.ts
      runHook postBuild
    '';

    installPhase = ''
      runHook preInstall
      install -D -m 755 dist/nixcache $out/bin/nixcache
      install -D -m 644 LICENSE $out/share/doc/nixcache/LICENSE
      cd $out/share
      mkdir -p bash-completion/completions zsh/site-functions fish/vendor_completions.d man/man1
      $out/bin/nixcache completions bash > bash-completion/completions/nixcache.bash
      $out/bin/nixcache completions zsh > zsh/site-functions/_nixcache
      $out/bin/nixcache completions fish > fish/vendor_completions.d/nixcache.fish
      $out/bin/nixcache man > man/man1/nixcache.1
      runHook postInstall
    '';

    # The program stands behind Bun's own code in the file: strip cuts it off, and then it is plain bun.
    dontStrip = true;
    dontPatchELF = true;

    doInstallCheck = stdenv.buildPlatform.canExecute stdenv.hostPlatform;
    installCheckPhase = ''
      runHook preInstallCheck
      $out/bin/nixcache --version | grep -F "nixcache ${manifest.version} ("
      runHook postInstallCheck
    '';

    disallowedReferences = [ nodeModules ];

    meta = {
      inherit (manifest) description;
      license = lib.licenses.mit;
      mainProgram = "nixcache";
      platforms = [
        "x86_64-linux"
        "aarch64-linux"
        "x86_64-darwin"
        "aarch64-darwin"
      ];
    };
  }
