import { NixcacheError } from "../errors.ts";

/** An upload that is not accepted: a status that Nix takes for final, and why, in a sentence of under 1 KiB. */
export class Refusal extends Error {
  readonly status: 400 | 401 | 403 | 404 | 405 | 409 | 411 | 413 | 415;
  readonly headers: Record<string, string>;

  constructor(status: Refusal["status"], message: string, headers: Record<string, string> = {}) {
    super(message);
    this.name = "Refusal";
    this.status = status;
    this.headers = headers;
  }
}

/** Runs what reads a client's text: what is wrong with that is the client's fault. @throws Refusal (400) */
export function readSent<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof NixcacheError) throw new Refusal(400, error.message);
    throw error;
  }
}
