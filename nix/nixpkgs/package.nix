# As it would stand in nixpkgs, at pkgs/by-name/ni/nixcache/package.nix. Two things are filled in with the first release:
# who owns the repository, and what its tag hashes to.
{
  lib,
  stdenv,
  stdenvNoCC,
  fetchFromGitHub,
  bun,
  installShellFiles,
  nix-update-script,
  testers,
  versionCheckHook,
  writableTmpDirAsHomeHook,
}:

stdenv.mkDerivation (finalAttrs: {
  pname = "nixcache";
  version = "0.1.0";

  __structuredAttrs = true;
  strictDeps = true;

  src = fetchFromGitHub {
    owner = "OWNER";
    repo = "nixcache";
    tag = "v${finalAttrs.version}";
    hash = lib.fakeHash;
  };

  # The same on every system: nothing of it is compiled.
  nodeModules = stdenvNoCC.mkDerivation {
    pname = "nixcache-node-modules";
    inherit (finalAttrs) version src;
    impureEnvVars = lib.fetchers.proxyImpureEnvVars;
    nativeBuildInputs = [
      bun
      writableTmpDirAsHomeHook
    ];
    dontConfigure = true;
    buildPhase = ''
      runHook preBuild
      bun install --frozen-lockfile --production --ignore-scripts --no-progress --backend=copyfile --cpu='*' --os='*'
      runHook postBuild
    '';
    installPhase = ''
      runHook preInstall
      cp -R node_modules $out
      runHook postInstall
    '';
    dontFixup = true;
    outputHashMode = "recursive";
    outputHash = "sha256-CRcTRenOAYz3uxfbpz6+ovhPEd5f9dsAdUEdR/PQh3U=";
  };

  nativeBuildInputs = [
    bun
    installShellFiles
    writableTmpDirAsHomeHook
  ];

  env = {
    # A release is of its tag.
    NIXCACHE_COMMIT = finalAttrs.src.tag;
    NIXCACHE_REPOSITORY = "${finalAttrs.src.owner}/${finalAttrs.src.repo}";
  };

  dontConfigure = true;

  buildPhase = ''
    runHook preBuild
    # Not a link: the executable would name the store path, and so keep it alive.
    cp -R ${finalAttrs.nodeModules} node_modules
    bun scripts/build.ts
    runHook postBuild
  '';

  installPhase = ''
    runHook preInstall
    install -Dm755 dist/nixcache $out/bin/nixcache
    for shell in bash zsh fish; do
      $out/bin/nixcache completions $shell > nixcache.$shell
    done
    installShellCompletion --cmd nixcache --bash nixcache.bash --zsh nixcache.zsh --fish nixcache.fish
    $out/bin/nixcache man > nixcache.1
    installManPage nixcache.1
    runHook postInstall
  '';

  # The program stands behind Bun's own code in the file, and strip cuts it off.
  dontStrip = true;
  dontPatchELF = true;

  doInstallCheck = true;
  nativeInstallCheckInputs = [ versionCheckHook ];

  passthru = {
    tests.version = testers.testVersion { package = finalAttrs.finalPackage; };
    updateScript = nix-update-script {
      extraArgs = [
        "--subpackage"
        "nodeModules"
      ];
    };
  };

  meta = {
    description = "Turns any GitHub repository into a Nix binary cache";
    homepage = "https://github.com/${finalAttrs.src.owner}/${finalAttrs.src.repo}";
    changelog = "https://github.com/${finalAttrs.src.owner}/${finalAttrs.src.repo}/releases/tag/${finalAttrs.src.tag}";
    license = lib.licenses.mit;
    # Whoever sends it adds their name.
    maintainers = [ ];
    mainProgram = "nixcache";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
      "aarch64-darwin"
    ];
    # Older ones end a zstd stream at an empty frame. Bun makes executables for the machine that it runs on.
    broken = lib.versionOlder bun.version "1.4" || !lib.systems.equals stdenv.buildPlatform stdenv.hostPlatform;
  };
})
