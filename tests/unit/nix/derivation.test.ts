import { expect, test } from "bun:test";
import { parseOutputs } from "../../../src/nix/derivation.ts";

const TAIL = '[("/nix/store/x.drv",["out"])],[],"x86_64-linux","/bin/sh",[],[("a","),(\\"")])';

test.each<[string, string, Record<string, string | null>]>([
  ["one", `Derive([("out","/nix/store/o","","")],${TAIL}`, { out: "/nix/store/o" }],
  [
    "two",
    `Derive([("dev","/nix/store/d","",""),("out","/nix/store/o","r:sha256","00")],${TAIL}`,
    { dev: "/nix/store/d", out: "/nix/store/o" },
  ],
  ["known after the build", `Derive([("out","","r:sha256","")],${TAIL}`, { out: null }],
  ["of what needs such a one", `Derive([("out","","","")],${TAIL}`, { out: null }],
  [
    "a newer format",
    `DrvWithVersion("xp-dyn-drv",[("out","/nix/store/o","","")],${TAIL}`,
    { out: "/nix/store/o" },
  ],
])("%s", (_, text, outputs) => {
  expect(parseOutputs(text, "/nix/store/x.drv")).toEqual(outputs);
});

test.each(["", "Derive([],[])", "Derive(", 'Derive([("out","/nix/store/o")],', "#!/bin/sh"])(
  "%j is none",
  (text) => {
    expect(() => parseOutputs(text, "/nix/store/x.drv")).toThrow(
      /^\/nix\/store\/x\.drv: expected a derivation/,
    );
  },
);
