#!/bin/sh
# Puts the nixcache of a release into a folder: install.sh VERSION FOLDER. Nothing is installed whose checksum is not
# the release's. NIXCACHE_RELEASES: where releases are, such as https://github.com/OWNER/nixcache/releases/download
set -eu

version=$1
folder=$2
releases=${NIXCACHE_RELEASES:?set it to where the releases are}

# It becomes part of a URL: nothing but a tag, so that it leads nowhere else.
case "$version" in
  v[0-9]*) ;;
  *) version= ;;
esac
case "$version" in
  "" | *[!0-9A-Za-z.+-]* | *..*)
    echo "nixcache: the version is $1, expected a release such as v1.2.3" >&2
    exit 1
    ;;
esac

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) if ldd --version 2>&1 | grep -qi musl; then platform=x86_64-linux-musl; else platform=x86_64-linux; fi ;;
  Linux-aarch64 | Linux-arm64) platform=aarch64-linux ;;
  Darwin-x86_64) platform=x86_64-darwin ;;
  Darwin-arm64) platform=aarch64-darwin ;;
  *)
    echo "nixcache: there is no release for $(uname -s) on $(uname -m)" >&2
    exit 1
    ;;
esac
archive=nixcache-$platform.tar.gz

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fetch() {
  curl --fail --silent --show-error --location --retry 5 --retry-connrefused --output "$1" "$releases/$version/$1"
}
fetch SHA256SUMS
fetch "$archive"

grep -F -x "$(sha256sum "$archive" 2>/dev/null || shasum -a 256 "$archive")" SHA256SUMS >/dev/null || {
  echo "nixcache: $archive of $version has another checksum than its release states; nothing was installed" >&2
  exit 1
}
tar -xzf "$archive" nixcache
mkdir -p "$folder"
mv nixcache "$folder/nixcache"
