# The files of this project by these names, below its top folder; folders are taken whole. What a build does not read
# does not make it run again.
names:
let
  top = toString ../.;
  isUnder = folder: file: file == folder || builtins.substring 0 (builtins.stringLength folder + 1) file == "${folder}/";
in
builtins.path {
  name = "nixcache-source";
  path = ../.;
  filter =
    file: _type:
    builtins.any (
      name:
      let
        wanted = "${top}/${name}";
      in
      isUnder wanted file || isUnder file wanted
    ) names;
}
