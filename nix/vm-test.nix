# The module on machines of its own: a registry, and a client that builds from what was published to it. The client
# has no other substituter, and there is no network beyond the two.
{
  pkgs,
  package,
  module,
}:
let
  # Of the tests; it protects nothing.
  secretKey = ../tests/fixtures/nar/key.secret;
  publicKey = pkgs.lib.trim (builtins.readFile ../tests/fixtures/nar/key.public);
in
pkgs.testers.runNixOSTest {
  name = "nixcache-proxy";

  nodes.registry = {
    services.dockerRegistry = {
      enable = true;
      listenAddress = "0.0.0.0";
      port = 5000;
    };
    networking.firewall.allowedTCPPorts = [ 5000 ];
    environment.systemPackages = [ package ];
  };

  nodes.client =
    { lib, ... }:
    {
      imports = [ module ];
      services.nixcache-proxy = {
        enable = true;
        inherit package publicKey;
        caches = [ "http://registry:5000/team/nix-cache" ];
        upstreams = [ ];
        writable = true;
        narCache.enable = true;
      };
      nix.settings.experimental-features = [
        "nix-command"
        "flakes"
      ];
      nix.settings.substituters = lib.mkForce [ "http://127.0.0.1:37515" ];
      environment.systemPackages = [ pkgs.curl ];
    };

  testScript = ''
    def build(name: str) -> str:
        return (
            f"nix-build --no-out-link --expr 'derivation {{ name = \"{name}\"; system = builtins.currentSystem;"
            f" builder = \"/bin/sh\"; args = [ \"-c\" \"echo {name} > $out\" ]; }}'"
        )

    start_all()

    with subtest("the service is ready although its cache is not there yet"):
        client.wait_for_unit("nixcache-proxy.service")
        client.succeed("systemctl show --property=Type nixcache-proxy.service | grep -x Type=notify")

    with subtest("what is published is served, signed, and built from"):
        registry.wait_for_unit("docker-registry.service")
        registry.wait_for_open_port(5000)
        path = registry.succeed(build("published")).strip()
        registry.succeed(
            f"nixcache publish {path} --cache http://127.0.0.1:5000/team/nix-cache"
            " --upstream ''' --signing-key-file ${secretKey}"
        )
        client.wait_until_succeeds("curl --fail --silent --request POST http://127.0.0.1:37515/_refresh")
        client.fail(f"test -e {path}")
        client.succeed(f"nix-store --realise {path}")
        client.succeed(f"grep -x published {path}")
        client.succeed(f"nix path-info --sigs {path} | grep -F ${builtins.head (pkgs.lib.splitString ":" publicKey)}:")

    with subtest("what nobody signed is refused"):
        built = registry.succeed(build("unsigned")).strip()
        registry.succeed(
            f"nixcache publish {built} --cache http://127.0.0.1:5000/team/nix-cache --upstream '''"
        )
        client.succeed("curl --fail --silent --request POST http://127.0.0.1:37515/_refresh")
        client.fail(f"nix-store --realise {built}")

    with subtest("uploads are taken and committed"):
        client.succeed("echo uploaded > /tmp/uploaded")
        uploaded = client.succeed("nix-store --add /tmp/uploaded").strip()
        client.succeed(f"nix copy --to http://127.0.0.1:37515 {uploaded}")
        client.wait_until_succeeds("curl --fail --silent http://127.0.0.1:37515/_status | grep '\"pending_paths\": *0'")
        client.succeed("systemctl restart nixcache-proxy.service")
        hash_part = uploaded.split("/")[3].split("-")[0]
        client.wait_until_succeeds(f"curl --fail --silent http://127.0.0.1:37515/{hash_part}.narinfo")

    with subtest("with the registry down it starts, and answers from what it knows"):
        registry.succeed("systemctl stop docker-registry.service")
        client.succeed("systemctl restart nixcache-proxy.service")
        client.succeed(f"curl --fail --silent http://127.0.0.1:37515/{hash_part}.narinfo")

    with subtest("without the service Nix builds by itself"):
        client.succeed("systemctl stop nixcache-proxy.service")
        client.succeed(build("alone"))

    client.log(client.succeed("systemd-analyze security nixcache-proxy.service --no-pager"))
  '';
}
