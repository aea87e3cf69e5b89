# The Bun that builds nixcache: that of nixpkgs where it is new enough, else npm's, whose files are the same. With 1.3.13
# the executable is built, too, and answers wrongly: its zstd streams end at an empty frame.
{
  lib,
  stdenv,
  fetchurl,
  patchelf,
  bun,
}:
let
  version = "1.4.5";
  inherit (stdenv.hostPlatform) system;
  platforms = {
    x86_64-linux = {
      name = "linux-x64";
      hash = "sha512-IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==";
    };
    aarch64-linux = {
      name = "linux-aarch64";
      hash = "sha512-4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==";
    };
    x86_64-darwin = {
      name = "darwin-x64";
      hash = "sha512-qkLPMGHZM9NI6CeHTWwVezzmlo6cC4Ta7yUAjYIWXS366qQcOlcp75t2uZyiuVRBMPS0h9qE0tCcvCHGaFqjJg==";
    };
    aarch64-darwin = {
      name = "darwin-aarch64";
      hash = "sha512-4MIFXHmctH2EhAxLXm2/qxNtv17dFtLJylvaOCsrgq6KSqHTs6eW5YSrJjRbJxYUJaR901fsN8JfZOa+CsWpWQ==";
    };
  };
  platform = platforms.${system} or (throw "nixcache: there is no Bun for ${system}");
in
if lib.versionAtLeast bun.version "1.4" then
  bun
else
  stdenv.mkDerivation {
    pname = "bun";
    inherit version;
    src = fetchurl {
      url = "https://registry.npmjs.org/@oven/bun-${platform.name}/-/bun-${platform.name}-${version}.tgz";
      inherit (platform) hash;
    };
    nativeBuildInputs = lib.optional stdenv.hostPlatform.isLinux patchelf;
    dontUnpack = true;
    dontConfigure = true;
    dontBuild = true;
    # The interpreter alone: anything more would move what `bun build --compile` copies into an executable.
    installPhase = ''
      runHook preInstall
      mkdir -p $out
      tar --extract --gzip --file $src --directory $out --strip-components 1 package/bin/bun
      ${lib.optionalString stdenv.hostPlatform.isLinux "patchelf --set-interpreter ${stdenv.cc.bintools.dynamicLinker} $out/bin/bun"}
      runHook postInstall
    '';
    dontStrip = true;
    dontPatchELF = true;
    meta = {
      description = "JavaScript runtime, as npm has it";
      homepage = "https://bun.com";
      license = lib.licenses.mit;
      mainProgram = "bun";
      platforms = builtins.attrNames platforms;
      sourceProvenance = [ lib.sourceTypes.binaryNativeCode ];
    };
  }
