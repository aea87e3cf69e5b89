# What the tests and the demo need, in the place of Debian's packages that scripts/parts.ts installs elsewhere.
{
  lib,
  stdenv,
  mkShell,
  runCommand,
  biome,
  callPackage,
  chromium,
  distribution,
  git,
  nginx,
  nix,
  openssl,
  skopeo,
  systemd,
  xz,
  zstd,
}:
let
  # Debian's name for it.
  docker-registry = runCommand "docker-registry" { } ''
    mkdir -p $out/bin
    ln -s ${distribution}/bin/registry $out/bin/docker-registry
  '';
in
mkShell {
  packages = [
    (callPackage ./bun.nix { })
    docker-registry
    git
    nginx
    nix
    openssl
    skopeo
    xz
    zstd
  ]
  ++ lib.optionals stdenv.hostPlatform.isLinux [
    chromium
    systemd
  ];

  # npm's is linked for other systems than NixOS.
  BIOME_BINARY = lib.getExe biome;
}
