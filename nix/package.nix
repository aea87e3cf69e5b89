# nixcache from source. The sandbox has no network: what is needed from npm comes by fixed-output fetches.
{
  lib,
  stdenv,
  callPackage,
  installShellFiles,
  versionCheckHook,
  writableTmpDirAsHomeHook,
  # What the sources are of, which they do not tell by themselves: { commit = "0123456789ab"; date = "2026-11-23"; }.
  # One argument with a name that no package of nixpkgs has: callPackage fills in whatever it finds.
  nixcacheBuild ? { },
}:
let
  manifest = builtins.fromJSON (builtins.readFile ../package.json);
  release = builtins.fromJSON (builtins.readFile ./release.json);
  bun = callPackage ./bun.nix { };
  nodeModules = callPackage ./node-modules.nix { };
  given = name: default: if nixcacheBuild.${name} or null == null then default else nixcacheBuild.${name};
  # Where releases are, for the workflows that `nixcache init` writes.
  repository =
    if release.version == null then
      ""
    else
      builtins.head (builtins.match "https://github.com/([^/]+/[^/]+)/.*" release.systems.x86_64-linux.url);
in
if stdenv.buildPlatform.config != stdenv.hostPlatform.config then
  throw "nixcache cannot be built on ${stdenv.buildPlatform.config} for ${stdenv.hostPlatform.config}: Bun would make an executable for the former. Build it on a ${stdenv.hostPlatform.system} machine, or take the package nixcache-bin"
else
  stdenv.mkDerivation (finalAttrs: {
    pname = "nixcache";
    inherit (manifest) version;
    __structuredAttrs = true;
    strictDeps = true;

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

    nativeBuildInputs = [
      bun
      installShellFiles
      writableTmpDirAsHomeHook
    ];
    env = {
      NIXCACHE_COMMIT = given "commit" "unknown";
      NIXCACHE_DATE = given "date" "";
      NIXCACHE_REPOSITORY = repository;
    };

    dontConfigure = true;
    buildPhase = ''
      runHook preBuild
      # Not a link: the executable would name the store path, and so keep it alive.
      cp -R ${nodeModules}/node_modules node_modules
      bun scripts/build.ts
      runHook postBuild
    '';

    installPhase = ''
      runHook preInstall
      install -D -m 755 dist/nixcache $out/bin/nixcache
      install -D -m 644 LICENSE $out/share/doc/nixcache/LICENSE
      for shell in bash zsh fish; do $out/bin/nixcache completions $shell > nixcache.$shell; done
      installShellCompletion --cmd nixcache --bash nixcache.bash --zsh nixcache.zsh --fish nixcache.fish
      $out/bin/nixcache man > nixcache.1
      installManPage nixcache.1
      runHook postInstall
    '';

    # The program stands behind Bun's own code in the file: strip cuts it off, and then it is plain bun.
    dontStrip = true;
    dontPatchELF = true;

    doInstallCheck = true;
    nativeInstallCheckInputs = [ versionCheckHook ];

    outputChecks.out.disallowedReferences = [ nodeModules ];

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
    }
    // lib.optionalAttrs (repository != "") {
      homepage = "https://github.com/${repository}";
      changelog = "https://github.com/${repository}/releases/tag/v${finalAttrs.version}";
    };
  })
