/**
 * The Nix function that goes through a flake's outputs, and the reader of what it says meanwhile.
 *
 * One evaluation finds everything: to load nixpkgs takes seconds, to look at one more attribute milliseconds.
 * Nix's `tryEval` catches `throw` and `assert` alone; a type error or a missing attribute ends the evaluation. So
 * each result is said at once, by `builtins.trace`, and so is where the walk is: when the evaluation dies, what
 * was found is known, and who is to blame, and the next one goes on behind it.
 */
import { NixcacheError, preview } from "../errors.ts";
import { nixString } from "../nix/nix-string.ts";
import { type Expressions, REPLACED, SEPARATOR } from "./pattern.ts";
import type { Place } from "./place.ts";
import type { Selector } from "./selector.ts";

export interface WalkArguments {
  readonly selectors: readonly (Pick<Selector, "recurse" | "host" | "required"> & {
    /** A name as it is, or an expression for the names meant. */
    readonly paths: readonly (readonly ({ readonly name: string } | { readonly pattern: string })[])[];
  })[];
  /** Of derivations that count, any of these must be meant; none for all. */
  readonly include: readonly Expressions[];
  /** Expressions; what they mean is not looked at. */
  readonly exclude: readonly string[];
  /** The system that this machine builds for. */
  readonly system: string;
  /** Go on behind this place, leaving out what is below it. */
  readonly after: Place | null;
  /** Whether a `throw` is said and the walk goes on, or ends the evaluation with its message. */
  readonly catch: boolean;
}

export type WalkEvent = Place &
  /** `missing` with the path of what is not there; `excluded` where a pattern says that it is not looked at. */
  (
    | { readonly kind: "begin" | "thrown" | "missing" | "excluded" }
    | {
        readonly kind: "derivation";
        readonly name: string;
        readonly drvPath: string;
        readonly system: string;
        readonly outputs: Readonly<Record<string, string>>;
      }
    /** The derivations that an app's program comes from; none where it is a file of the flake's. */
    | { readonly kind: "program"; readonly drvPaths: readonly string[] }
    /** A configuration for another system. */
    | { readonly kind: "foreign"; readonly system: string }
    /** No set although there is more of the path, or else neither a derivation nor a set to look into. */
    | { readonly kind: "other"; readonly type: string; readonly wanted: "set" | "derivation" }
    /**
     * How many names of a set the last pattern of a path matches; whether that is the path's end. Of the names those
     * in ASCII, in their order: Nix from 2.14 on ends where it is to say one that is no UTF-8.
     */
    | {
        readonly kind: "names";
        readonly count: number;
        readonly names: readonly string[];
        readonly isEnd: boolean;
      }
  );

const MARK = "nixcache-walk ";

function nixList(texts: readonly string[]): string {
  return `[ ${texts.map(nixString).join(" ")} ]`;
}

/** The function to pass to `nix eval --apply`. */
export function walkExpression(args: WalkArguments): string {
  return `(${WALK}) (builtins.fromJSON ${nixString(JSON.stringify(args))})`;
}

/** What the walk said in a line of Nix's standard error; undefined when the line is not the walk's. */
export function parseWalkLine(line: string): WalkEvent | undefined {
  const start = `trace: ${MARK}`;
  if (!line.startsWith(start)) return undefined;
  try {
    return JSON.parse(line.slice(start.length)) as WalkEvent;
  } catch (cause) {
    throw new NixcacheError("nix-store", `nix eval: got ${preview(line)}, expected JSON`, { cause });
  }
}

/**
 * Results are forced inside of `tryEval`, and without their contexts, for Nix would otherwise have to realise what
 * a trace mentions. `or` answers for every set on the way that lacks the attribute.
 */
const WALK = `args: outputs:
let
  inherit (builtins) all any attrNames concatStringsSep deepSeq elemAt filter foldl' functionArgs getAttr
    getContext hasAttr head isAttrs isFunction isString length match replaceStrings seq tail toJSON trace tryEval typeOf
    unsafeDiscardStringContext;

  attempt = value: if args.catch then tryEval value else { success = true; inherit value; };
  isHost = selector: selector ? host;
  each = f: list: foldl' (done: item: seq (f item) done) null list;
  say = kind: place: fields:
    trace ("${MARK}" + toJSON ({ inherit kind; inherit (place) selector path; } // fields));

  # The order of the walk; what is below a place comes with it.
  passed = place: args.after != null && (
    if place.selector != args.after.selector then place.selector < args.after.selector
    else passedPath place.path args.after.path);
  passedPath = path: after:
    if after == [ ] then true
    else if path == [ ] then false
    else if head path == head after then passedPath (tail path) (tail after)
    else head path < head after;

  joined = path: concatStringsSep "${SEPARATOR}" (map (replaceStrings ${nixList(REPLACED.from)} ${nixList(REPLACED.to)}) path);
  matches = pattern: path: match pattern (joined path) != null;
  excluded = path: any (pattern: matches pattern path) args.exclude;
  meant = path: args.include == [ ] || any (pattern: matches pattern.meant path) args.include;
  reached = path: path == [ ] || args.include == [ ] || any (pattern: matches pattern.reached path) args.include;

  isDerivation = value: isAttrs value && value.type or null == "derivation";
  # As nix-build does with functions whose arguments all have defaults.
  call = value:
    if isFunction value && all (default: default) (builtins.attrValues (functionArgs value)) && functionArgs value != { }
    then value { } else value;

  visit = selector: place: rest: value:
    let
      here = if rest == [ ] && !selector.recurse then meant place.path else reached place.path;
      found = attempt (let called = call value; in seq called called);
      platform = attempt (found.value.pkgs.stdenv.buildPlatform.system or null);
      isForeign = isHost selector && selector.host == length place.path && platform.success && isString platform.value
        && platform.value != args.system;
    in
    if passed place || !here then null
    else if excluded place.path then say "excluded" place { } null
    else say "begin" place { } (
      if !found.success then (if meant place.path || rest != [ ] then say "thrown" place { } null else null)
      else if isForeign then say "foreign" place { system = platform.value; } null
      else if rest != [ ] then step selector place rest found.value
      else leaf selector place found.value);

  step = selector: place: rest: value:
    let
      wanted = head rest;
      into = name: visit selector (place // { path = place.path ++ [ name ]; }) (tail rest) (getAttr name value);
      names = filter (name: matches wanted.pattern [ name ]) (attrNames value);
      isLast = all (later: later ? name) (tail rest);
    in
    if !isAttrs value then say "other" place { type = typeOf value; wanted = "set"; } null
    else if wanted ? name then (if hasAttr wanted.name value then into wanted.name else missing selector place rest)
    else if isLast then say "names" place {
        count = length names;
        names = filter (name: match "[ -~]*" name != null) names;
        isEnd = tail rest == [ ];
      } (each into names)
    else each into names;

  missing = selector: place: rest:
    if selector.required || isHost selector && length place.path >= selector.host
    then say "missing" (place // { path = place.path ++ map (wanted: wanted.name or "*") rest; }) { } null
    else null;

  leaf = selector: place: value:
    if isDerivation value then (if meant place.path then derivation selector place value else null)
    else if isAttrs value && value.type or null == "app" && value ? program then program place value.program
    else if isAttrs value && selector.recurse then each
      (name: nested selector (place // { path = place.path ++ [ name ]; }) (getAttr name value))
      (filter (name: name != "recurseForDerivations") (attrNames value))
    else say "other" place { type = typeOf value; wanted = "derivation"; } null;

  # Only sets that say so are looked into, and nothing else than derivations counts.
  nested = selector: place: value:
    let
      found = attempt (seq value value);
      inside = attempt (isDerivation found.value || (isAttrs found.value && found.value.recurseForDerivations or false == true));
    in
    if passed place || !(reached place.path) then null
    else if excluded place.path then say "excluded" place { } null
    else say "begin" place { } (
      if !found.success || !inside.success then (if meant place.path then say "thrown" place { } null else null)
      else if inside.value then leaf selector place found.value
      else null);

  derivation = selector: place: value:
    let
      outputNames = value.outputs or [ "out" ];
      plain = text: unsafeDiscardStringContext (toString text);
      fields = {
        name = plain value.name;
        drvPath = plain value.drvPath;
        system = plain value.system;
        outputs = builtins.listToAttrs (map (name: { inherit name; value = plain (getAttr name value).outPath; }) outputNames);
      };
      isForeign = isHost selector && value.system or args.system != args.system;
      result = attempt (if isForeign then null else deepSeq fields fields);
    in
    if !result.success then say "thrown" place { } null
    else if result.value == null then say "foreign" place { system = plain value.system; } null
    else say "derivation" place result.value null;

  program = place: text:
    let
      context = attempt (let found = getContext (toString text); in filter (path: found.\${path} ? outputs) (attrNames found));
      result = attempt (deepSeq context.value (map unsafeDiscardStringContext context.value));
    in
    if !context.success || !result.success then say "thrown" place { } null
    else say "program" place { drvPaths = result.value; } null;

  # The first path whose names up to a pattern are all there; the last when none is.
  choose = paths: value:
    if length paths == 1 || exists (head paths) value then head paths else choose (tail paths) value;
  exists = path: value:
    if path == [ ] || !(head path ? name) then true
    else isAttrs value && hasAttr (head path).name value && exists (tail path) (call (getAttr (head path).name value));

  select = index:
    let
      selector = elemAt args.selectors index;
      place = { selector = index; path = [ ]; };
      path = attempt (choose selector.paths (call outputs));
    in
    if passed place then null
    else say "begin" place { } (
      if !path.success then say "thrown" place { } null
      else visit selector place path.value outputs);
in
each select (builtins.genList (index: index) (length args.selectors))`;
