# Reads bun.lock: which npm packages there are, where each belongs below node_modules, and what its tarball must hash
# to. With builtins alone, so that it can be evaluated without nixpkgs.
# https://bun.com/docs/pm/lockfile
text:
let
  inherit (builtins)
    concatStringsSep
    elem
    elemAt
    filter
    foldl'
    genList
    head
    isList
    isString
    length
    match
    split
    ;

  # It is JSON but for a comma behind the last member. No string of JSON holds a line break, so what stands before one
  # is never inside a string.
  strict = concatStringsSep "" (
    map (piece: if isList piece then head piece else piece) (split ",(\n[ \n]*[]}])" text)
  );
  lock = builtins.fromJSON strict;

  last = list: elemAt list (length list - 1);
  init = list: genList (elemAt list) (length list - 1);

  # "a/@b/c" is @b/c inside a: [ "a" "@b/c" ].
  namesOf =
    key:
    foldl' (
      names: part:
      if names != [ ] && match "@[^/]*" (last names) != null then
        init names ++ [ "${last names}/${part}" ]
      else
        names ++ [ part ]
    ) [ ] (filter isString (split "/" key));

  packageOf =
    key: entry:
    let
      spec = head entry;
      parsed = match "(@?[^@]+)@([0-9]+[.][0-9]+[.][0-9]+.*)" spec;
      name = elemAt parsed 0;
      version = elemAt parsed 1;
      base = elemAt (match "(@[^/]+/)?(.+)" name) 1;
      about = elemAt entry 2;
      hash = elemAt entry 3;
    in
    if parsed == null || length entry != 4 || elemAt entry 1 != "" || match "sha512-[A-Za-z0-9+/]+=*" hash == null then
      throw "bun.lock: got ${builtins.toJSON entry} for ${key}, expected a package of the npm registry with its sha512"
    else
      {
        inherit
          key
          name
          version
          hash
          ;
        folder = concatStringsSep "/node_modules/" (namesOf key);
        url = "https://registry.npmjs.org/${name}/-/${base}-${version}.tgz";
        os = about.os or null;
        cpu = about.cpu or null;
        libc = about.libc or null;
        required =
          about.dependencies or { } // removeAttrs (about.peerDependencies or { }) (about.optionalPeers or [ ]);
        optional = about.optionalDependencies or { };
      };

  packages = builtins.mapAttrs packageOf lock.packages;

  # As Node looks for a package: inside the one that asks, then inside those around that, then at the top.
  resolve =
    from: name:
    let
      inside = if from == "" then name else "${from}/${name}";
    in
    if packages ? ${inside} then
      inside
    else if from == "" then
      null
    else
      resolve (concatStringsSep "/" (init (namesOf from))) name;

  # A text, or a list of which one must fit; "!x" is everything but x.
  admits =
    wanted: have:
    let
      list = if isList wanted then wanted else [ wanted ];
      refused = filter (word: match "!.*" word != null) list;
    in
    wanted == null || elem have list || (refused != [ ] && !elem "!${have}" list);

  fits =
    platform: package:
    admits package.os platform.os && admits package.cpu platform.cpu && admits package.libc platform.libc;
in
{
  inherit packages;

  # What must be in node_modules for a platform such as { os = "linux"; cpu = "x64"; libc = "glibc"; }, in the order
  # in which it can be laid out. `dev` takes what is needed for tests as well.
  closure =
    {
      platform,
      dev ? false,
    }:
    let
      own = lock.workspaces."";
      need =
        from: names:
        map (
          name:
          let
            key = resolve from name;
          in
          if key == null then throw "bun.lock: ${if from == "" then "package.json" else from} needs ${name}, which is not in it" else key
        ) (builtins.attrNames names);
      # Those of other platforms may be missing.
      want =
        from: names:
        filter (key: key != null && fits platform packages.${key}) (map (resolve from) (builtins.attrNames names));
      start =
        need "" (own.dependencies or { } // (if dev then own.devDependencies or { } else { }))
        ++ want "" (own.optionalDependencies or { });
      found = builtins.genericClosure {
        startSet = map (key: { inherit key; }) start;
        operator =
          { key }:
          map (key: { inherit key; }) (need key packages.${key}.required ++ want key packages.${key}.optional);
      };
    in
    builtins.sort (a: b: a.folder < b.folder) (map ({ key }: packages.${key}) found);
}
