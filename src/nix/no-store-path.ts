/** A name that leads to no valid path of the Nix store: a fault of that name alone, where others may be right. */
import { NixcacheError } from "../errors.ts";

export class NoStorePath extends NixcacheError {
  constructor(message: string, options: { hint: string; cause?: unknown }) {
    super("nix-store", message, options);
  }
}
