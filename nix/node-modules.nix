# node_modules as bun install lays it out, from npm's tarballs. Their hashes are those of bun.lock, so no other has to
# be kept in step with it.
{
  lib,
  stdenvNoCC,
  fetchurl,
  # What the tests need as well.
  dev ? false,
}:
let
  inherit (stdenvNoCC) hostPlatform;
  lock = import ./bun-lock.nix (builtins.readFile ../bun.lock);
  packages = lock.closure {
    inherit dev;
    platform = {
      os = if hostPlatform.isDarwin then "darwin" else "linux";
      cpu = if hostPlatform.isAarch64 then "arm64" else "x64";
      libc = if hostPlatform.isMusl then "musl" else "glibc";
    };
  };
in
stdenvNoCC.mkDerivation {
  name = "nixcache-node-modules";
  dontUnpack = true;
  dontBuild = true;
  # The top folder of a tarball has any name, mostly "package".
  installPhase = lib.concatMapStrings (package: ''
    mkdir -p $out/node_modules/${package.folder}
    tar --extract --gzip --file ${fetchurl { inherit (package) url hash; }} \
      --directory $out/node_modules/${package.folder} --strip-components 1 --no-same-owner
    chmod -R u+rwX,go+rX,go-w $out/node_modules/${package.folder}
  '') packages;
  # Nothing of it is run from here, and shebangs need no patching.
  dontFixup = true;
}
