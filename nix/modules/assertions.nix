# What cannot work, found when the configuration is evaluated, each with a sentence that says what to write instead.
{
  lib,
  cfg,
  # "nixos", "darwin" or "home".
  platform,
}:
let
  inherit (lib)
    any
    filter
    hasPrefix
    optionals
    ;
  service = import ./service.nix { inherit lib cfg; };
  inherit (service) references keys folderOf;
  name = "services.nixcache-proxy";

  matches = pattern: text: builtins.match pattern text != null;
  isIn = folder: path: path == folder || hasPrefix "${folder}/" path;

  refuse = fails: sentence: {
    assertion = !fails;
    message = "${name}: ${sentence}";
  };
  # One for each that fails.
  refuseEach = items: fails: sentence: map (item: refuse true (sentence item)) (filter fails items);

  # The paths of files that hold secrets, by option.
  secrets = lib.filterAttrs (_option: path: path != null) {
    inherit (cfg)
      environmentFile
      registryAuthFile
      signingKeyFile
      writeTokenFile
      ;
  };
  folders =
    lib.filter (folder: folder != null) (map folderOf references)
    ++ lib.optional (cfg.narCache.directory != null) (toString cfg.narCache.directory);
  # What the hardened unit of NixOS does not see.
  hidden = [
    "/home"
    "/root"
    "/run/user"
    "/tmp"
    "/var/tmp"
  ];
in
[
  (refuse (references == [ ]) "no cache is named. Set repo = \"OWNER/REPO\", or caches.")
  (refuse (cfg.repo != null && !service.isGitHubName cfg.repo)
    "repo is ${builtins.toJSON cfg.repo}, expected OWNER/REPO. Caches elsewhere than on GitHub belong into caches."
  )
  (refuse (cfg.port == 0) "port is 0, which is another one at each start. Choose one that Nix can be told of.")
  (refuse (cfg.listenAddress == "") "listenAddress is empty. Write 0.0.0.0 for all addresses of this machine.")
  (refuse (cfg.configureNix && cfg.requireSignatures && keys == [ ])
    "without a public key Nix takes nothing from the cache. Set publicKey, or requireSignatures = false for a cache that nobody signs."
  )
  (refuse ((cfg.signingKeyFile != null || cfg.writeTokenFile != null) && !cfg.writable)
    "signingKeyFile and writeTokenFile are for uploads. Set writable = true as well."
  )
  (refuse (cfg.writable && !service.isLoopback && cfg.writeTokenFile == null && cfg.environmentFile == null)
    "writable and listenAddress = \"${cfg.listenAddress}\" would let everybody write. Set writeTokenFile, or NIXCACHE_WRITE_TOKEN in environmentFile."
  )
  # A person's own service finds what `gh` and `docker login` have left.
  (refuse
    (
      cfg.writable
      && any service.isGitHub (lib.take 1 references)
      && cfg.environmentFile == null
      && cfg.registryAuthFile == null
      && platform != "home"
    )
    "uploads go to GitHub, which wants a token that may write packages. Set environmentFile to a file with GITHUB_TOKEN=… in it."
  )
]
++ refuseEach keys (key: !matches "[^: ]+:[A-Za-z0-9+/]{43}=" key) (
  key: "${builtins.toJSON key} is no public key. Write NAME:BASE64, the line that nixcache keygen writes."
)
++ refuseEach cfg.upstreams (url: !matches "https?://[^ ]+" url) (
  url: "the upstream ${builtins.toJSON url} is no URL. Write it as https://cache.nixos.org."
)
++ refuseEach cfg.upstreams (matches "https?://[^/ ]*@.*") (
  _url: "an upstream has a password in it, which everybody on the machine could read. Set NIXCACHE_UPSTREAM in environmentFile instead."
)
++ refuseEach (references ++ cfg.allowHosts ++ cfg.upstreams) (matches ".*[[:cntrl:]].*") (
  text: "${builtins.toJSON text} has a line break or another control character in it."
)
++ refuseEach folders (folder: !hasPrefix "/" folder) (
  folder: "the folder ${builtins.toJSON folder} is relative, and a service has no current folder. Write its absolute path."
)
++ refuseEach (builtins.attrNames secrets) (option: isIn builtins.storeDir (toString secrets.${option})) (
  option: "${option} is in the Nix store, which everybody on the machine can read. Write the path of a file outside as a text, such as \"/run/secrets/nixcache\"."
)
++ refuseEach folders (isIn builtins.storeDir) (
  folder: "the folder ${folder} is in the Nix store, where nothing can be written."
)
++ optionals (platform == "nixos") (
  refuseEach folders (folder: any (top: isIn top folder) hidden) (
    folder: "the service cannot see ${folder}: homes and temporary folders are hidden from it. Choose one such as /srv/nix-cache."
  )
  ++ [
    (refuse (cfg.openFirewall && service.isLoopback)
      "openFirewall opens a port at which nobody else can connect. Set listenAddress = \"0.0.0.0\" as well."
    )
  ]
)
