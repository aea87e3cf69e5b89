# A double of nixpkgs' lib: the functions that nix/ uses, and a module system of the same meaning for what the modules
# do. The real one takes its place when NIXCACHE_TEST_NIXPKGS_LIB names it; the tests must say the same then.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    elem
    filter
    foldl'
    genList
    head
    isAttrs
    isBool
    isFunction
    isInt
    isList
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    sort
    substring
    stringLength
    tail
    ;
  namesOfAll = sets: attrNames (foldl' (a: b: a // b) { } sets);

  lib = {
    inherit (builtins)
      any
      concatMap
      concatStringsSep
      elem
      filter
      head
      mapAttrs
      replaceStrings
      ;

    optional = condition: item: if condition then [ item ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalString = condition: text: if condition then text else "";
    optionalAttrs = condition: set: if condition then set else { };
    unique = foldl' (list: item: if elem item list then list else list ++ [ item ]) [ ];
    take = count: list: genList (builtins.elemAt list) (if count < length list then count else length list);
    genAttrs =
      names: f:
      listToAttrs (
        map (name: {
          inherit name;
          value = f name;
        }) names
      );
    filterAttrs =
      keep: set:
      listToAttrs (
        map (name: {
          inherit name;
          value = set.${name};
        }) (filter (name: keep name set.${name}) (attrNames set))
      );
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);

    concatStrings = lib.concatStringsSep "";
    concatMapStrings = f: list: lib.concatStrings (map f list);
    concatMapStringsSep = separator: f: list: lib.concatStringsSep separator (map f list);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasInfix = infix: text: length (lib.splitString infix text) > 1;
    removePrefix =
      prefix: text:
      if lib.hasPrefix prefix text then substring (stringLength prefix) (stringLength text) text else text;
    splitString =
      separator: text:
      filter isString (builtins.split (lib.replaceStrings [ "." "$" "[" ] [ "[.]" "[$]" "\\[" ] separator) text);
    trim = text: head (match "[ \n]*(.*[^ \n])[ \n]*" text);
    escapeShellArg =
      text: if match "[A-Za-z0-9,._+:@%/-]+" text != null then text else "'${lib.replaceStrings [ "'" ] [ "'\\''" ] text}'";
    escapeShellArgs = lib.concatMapStringsSep " " lib.escapeShellArg;

    versionOlder = a: b: builtins.compareVersions a b < 0;
    fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    fetchers.proxyImpureEnvVars = [ "https_proxy" ];
    systems.equals = a: b: a.config == b.config;
    versionAtLeast = a: b: !lib.versionOlder a b;
    getExe = package: "${package}/bin/${package.meta.mainProgram or package.pname}";
    licenses.mit.spdxId = "MIT";
    sourceTypes.binaryNativeCode.shortName = "binaryNativeCode";
    trivial.release = "26.11";

    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    mkOption = option: option // { _type = "option"; };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOverride = priority: content: {
      _type = "override";
      inherit priority content;
    };
    mkDefault = lib.mkOverride 1000;
    mkForce = lib.mkOverride 50;
    mkOrder = priority: content: {
      _type = "order";
      inherit priority content;
    };
    mkBefore = lib.mkOrder 500;
    mkAfter = lib.mkOrder 1500;

    types =
      let
        type = description: check: {
          inherit description check;
          merge =
            path: values:
            if all (value: value == head values) values then
              head values
            else
              throw "The option `${path}' has conflicting definition values";
        };
        between =
          least: most: description:
          type description (value: isInt value && value >= least && value <= most);
      in
      {
        bool = type "boolean" isBool;
        str = type "string" isString;
        port = between 0 65535 "16 bit unsigned integer; between 0 and 65535 (both inclusive)";
        ints.between =
          least: most: between least most "integer between ${toString least} and ${toString most} (both inclusive)";
        path = type "absolute path" (value: substring 0 1 (toString value) == "/");
        package = type "package" (value: isString value || value ? outPath);
        strMatching =
          pattern: type "string matching the pattern ${pattern}" (value: isString value && match pattern value != null);
        enum =
          values: type "one of ${lib.concatMapStringsSep ", " builtins.toJSON values}" (value: elem value values);
        nullOr =
          inner:
          type "null or ${inner.description}" (value: value == null || inner.check value);
        listOf =
          inner:
          type "list of ${inner.description}" (value: isList value && all inner.check value)
          // {
            merge = _path: concatLists;
          };
        # As far as the modules need it: sets are merged name by name, everything else must be the same.
        anything = type "anything" (_value: true) // {
          merge =
            path: values:
            if all (value: isAttrs value && !(value ? outPath)) values then
              listToAttrs (
                concatMap (
                  name:
                  let
                    found = valuesOf (concatMap (value: if value ? ${name} then definitions [ ] value.${name} else [ ]) values);
                  in
                  if found == [ ] then
                    [ ]
                  else
                    [
                      {
                        inherit name;
                        value = lib.types.anything.merge "${path}.${name}" found;
                      }
                    ]
                ) (namesOfAll values)
              )
            else
              (type "anything" null).merge path values;
        };
        attrsOf = inner: lib.types.anything // { check = isAttrs; };
      };

    evalModules =
      {
        modules,
        specialArgs ? { },
      }:
      let
        loaded = load [ ] modules;
        load =
          seen: list:
          if list == [ ] then
            [ ]
          else
            let
              first = head list;
              file = if builtins.isPath first || isString first then import first else first;
              value = if isFunction file then file (specialArgs // { inherit lib config; }) else file;
              isKnown = value ? key && elem value.key seen;
              inner = (if isKnown then [ ] else value.imports or [ ]) ++ tail list;
            in
            (
              if isKnown then
                [ ]
              else
                [
                  {
                    options = value.options or { };
                    config =
                      if value ? config || value ? options then
                        value.config or { }
                      else
                        removeAttrs value [
                          "_file"
                          "key"
                          "imports"
                        ];
                  }
                ]
            )
            ++ load (seen ++ (if value ? key then [ value.key ] else [ ])) inner;

        configs = map (module: module.config) loaded;
        unknown = concatMap (undeclared options [ ]) configs;
        options = foldl' recursive { } (map (module: module.options) loaded);
        config = build [ ] options;
        build =
          path: node:
          if node._type or "" == "option" then
            valueAt path node
          else
            mapAttrs (name: build (path ++ [ name ])) node;
        valueAt =
          path: option:
          let
            name = lib.concatStringsSep "." path;
            values = valuesOf (concatMap (definitions path) configs);
            wrong = filter (value: !option.type.check value) values;
          in
          if values == [ ] then
            option.default or (throw "The option `${name}' was accessed but has no value defined")
          else if wrong != [ ] then
            throw "A definition for option `${name}' is not of type `${option.type.description}'"
          else
            option.type.merge name values;
      in
      {
        config =
          if unknown == [ ] then
            config
          else
            throw "The option `${head unknown}' does not exist";
      };
  };

  recursive =
    a: b:
    a
    // mapAttrs (name: value: if a ? ${name} && value._type or "" != "option" then recursive a.${name} value else value) b;

  # The definitions at a path of a module's config, with their priority and their place.
  definitions =
    path: value:
    let
      kind = if isAttrs value then value._type or "" else "";
    in
    if kind == "if" then
      let
        inner = definitions path value.content;
      in
      # The condition may ask for options that nothing of this defines.
      if inner != [ ] && value.condition then inner else [ ]
    else if kind == "merge" then
      concatMap (definitions path) value.contents
    else if kind == "override" then
      map (definition: definition // { inherit (value) priority; }) (definitions path value.content)
    else if kind == "order" then
      map (definition: definition // { order = value.priority; }) (definitions path value.content)
    else if path == [ ] then
      [
        {
          inherit value;
          priority = 100;
          order = 1000;
        }
      ]
    else if value ? ${head path} then
      definitions (tail path) value.${head path}
    else
      [ ];

  # Of the most important definitions, in their order.
  valuesOf =
    list:
    let
      least = foldl' (least: { priority, ... }: if priority < least then priority else least) 9999 list;
      chosen = filter ({ priority, ... }: priority == least) list;
    in
    map ({ value, ... }: value) (sort (a: b: a.order < b.order) chosen);

  # Names in a module's config that are no options.
  undeclared =
    options: path: value:
    let
      kind = value._type or "";
    in
    if kind == "merge" then
      concatMap (undeclared options path) value.contents
    else if kind != "" then
      undeclared options path value.content
    else
      concatMap (
        name:
        let
          here = path ++ [ name ];
          node = options.${name};
        in
        if !(options ? ${name}) then
          [ (lib.concatStringsSep "." here) ]
        else if node._type or "" == "option" then
          [ ]
        else
          undeclared node here value.${name}
      ) (attrNames value);
in
lib
