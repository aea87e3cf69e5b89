# What the units of NixOS and home-manager have in common.
{ lib }:
let
  # % begins a specifier, such as %d for the folder of credentials.
  escapeSpecifiers = lib.replaceStrings [ "%" ] [ "%%" ];
in
rec {
  inherit escapeSpecifiers;

  # https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html#Command%20lines
  escapeArgument =
    argument:
    if builtins.match "[A-Za-z0-9_./:@,+=-]+" argument != null then
      argument
    else
      lib.replaceStrings [ "$" ] [ "$$" ] (escapeSpecifiers (builtins.toJSON argument));

  # A folder in a setting that is a list of them, or in a line for tmpfiles: there $ is a letter as any other.
  escapePath =
    path: if builtins.match "[A-Za-z0-9_./:@,+=-]+" path != null then path else escapeSpecifiers (builtins.toJSON path);

  command = arguments: lib.concatMapStringsSep " " escapeArgument arguments;

  # For a manager of any user: what needs namespaces of its own is in `hardened`.
  restricted = {
    NoNewPrivileges = true;
    LockPersonality = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    RestrictNamespaces = true;
    # getaddrinfo looks for addresses of this machine over netlink; systemd is told over a Unix socket.
    RestrictAddressFamilies = [
      "AF_INET"
      "AF_INET6"
      "AF_UNIX"
      "AF_NETLINK"
    ];
    SystemCallArchitectures = "native";
    SystemCallFilter = [
      "@system-service"
      "~@privileged"
    ];
    # An error in the place of a signal: libraries try what is not everywhere.
    SystemCallErrorNumber = "EPERM";
    UMask = "0077";
    LimitNOFILE = 65536;
  };

  # Not MemoryDenyWriteExecute: Bun compiles what it runs. /proc must be there as a whole (ProcSubset=all): it is asked
  # how much memory there is, and which limits are set.
  hardened = restricted // {
    ProtectSystem = "strict";
    ProtectHome = true;
    ProtectProc = "invisible";
    ProcSubset = "all";
    ProtectKernelTunables = true;
    ProtectKernelModules = true;
    ProtectKernelLogs = true;
    ProtectControlGroups = true;
    ProtectClock = true;
    ProtectHostname = true;
    PrivateTmp = true;
    PrivateDevices = true;
    DevicePolicy = "closed";
    PrivateMounts = true;
    RemoveIPC = true;
  };
}
