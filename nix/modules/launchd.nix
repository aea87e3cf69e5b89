# What the jobs of nix-darwin and home-manager have in common.
# https://www.manpagez.com/man/5/launchd.plist/
{ lib }:
{
  # A job may be loaded before the volume of the Nix store is there. No ampersand: it would have to be escaped in the
  # property list, which older versions of nix-darwin leave to us and newer ones do not.
  programArguments = environmentFile: command: [
    "/bin/sh"
    "-c"
    (lib.concatStringsSep "; " (
      [
        "set -e"
        "/bin/wait4path /nix/store"
      ]
      ++ lib.optionals (environmentFile != null) [
        "set -a"
        ". ${lib.escapeShellArg (toString environmentFile)}"
        "set +a"
      ]
      ++ [ "exec ${lib.escapeShellArgs command}" ]
    ))
  ];

  job = {
    RunAtLoad = true;
    KeepAlive = true;
    # Nix tries for 4.5 s before it gives a substituter up; launchd's own 10 s would be too long.
    ThrottleInterval = 1;
    ExitTimeOut = 30;
    Umask = 63; # 0077
    # macOS lets a process have 256 files open; 25 connections of Nix are 50 files.
    SoftResourceLimits.NumberOfFiles = 8192;
  };
}
