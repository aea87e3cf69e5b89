/**
 * Takes what `nix copy --to http://…` sends: checks it, puts it into the journal, and answers 201 once it is there to
 * stay. For each path Nix sends its listing and debuginfo, the NAR, the narinfo, and then realisations.
 * https://nix.dev/manual/nix/latest/store/types/http-binary-cache-store
 */
import { MAX_TEXT_BYTES } from "../cache/attachment.ts";
import { messageOf, systemCode } from "../errors.ts";
import type { Host } from "../host.ts";
import type { Guard } from "../serve/guard.ts";
import { text } from "../serve/respond.ts";
import type { Route } from "../serve/route.ts";
import type { Writer } from "../serve/writer.ts";
import { checkLocal, checkToken } from "./access.ts";
import { narParts } from "./batch.ts";
import { receiveText, type Upload, uploadOf } from "./body.ts";
import type { Committer } from "./committer.ts";
import { Intake, type IntakeOptions } from "./intake.ts";
import { Refusal } from "./refusal.ts";
import { takeAttached, takeListing } from "./take-beside.ts";
import { takeNar } from "./take-nar.ts";
import { takeNarInfo } from "./take-narinfo.ts";

/** Characters of a refusal: Nix shows what comes within a KiB. */
const MAX_REASON_LENGTH = 900;

export interface ReceiverOptions extends Omit<IntakeOptions, "added"> {
  /** Whether the index of the cache was ever loaded. */
  readonly isLoaded: () => boolean;
  readonly committer: Pick<Committer, "during" | "added">;
  readonly host: Pick<Host, "sleep">;
  /** Told what is not the client's fault. */
  readonly onError: (message: string) => void;
  readonly guard: Guard;
  /** Undefined: whoever reaches the server without a proxy may write. */
  readonly token: string | undefined;
}

export function createReceiver(options: ReceiverOptions): Writer {
  const { journal, index, committer, host, onError } = options;
  const intake = new Intake({ ...options, added: () => committer.added() });
  return {
    view: journal.view,
    store: journal.store,
    keepsNar: (file) => journal.file(`nar/${file}`) !== undefined || narParts(index(), file) !== undefined,
    async put(found, request) {
      try {
        admit(request, options);
        const isNew = await committer.during(() => take(found, uploadOf(request, host), intake));
        return text(request.method, isNew ? 201 : 200, "");
      } catch (error) {
        const { status, message, headers } = asRefusal(error, onError);
        return text(request.method, status, `${message.slice(0, MAX_REASON_LENGTH)}\n`, headers);
      }
    },
  };
}

/** @throws Refusal for a request that may not write */
function admit({ method, headers }: Request, { guard, token, isLoaded }: ReceiverOptions): void {
  const refused = guard({ method, headers });
  if (refused !== undefined) throw new Refusal(403, refused);
  if (token === undefined) checkLocal(headers);
  else checkToken(token, headers);
  if (!isLoaded()) throw new Refusal(403, "the index of the cache has not been loaded yet; try again later");
}

/** Whether something was stored; false where it was there. @throws Refusal */
async function take(found: Route, upload: Upload, intake: Intake): Promise<boolean> {
  switch (found.kind) {
    case "nar":
      return takeNar(found.file, upload, intake);
    case "narinfo":
      return takeNarInfo(found.storeHash, upload, intake);
    case "listing":
      return takeListing(found.storeHash, upload, intake);
    case "attached":
      return takeAttached(found.path, upload, intake);
    case "cache-info":
      // Nix writes one where there is none. Ours says what is so.
      await receiveText(upload, MAX_TEXT_BYTES);
      return false;
    default:
      throw new Refusal(404, "nothing can be stored under this path");
  }
}

/**
 * Whatever went wrong, as a status that ends the upload at once, with the reason. What a client sent wrong is a Refusal
 * by now; all else is ours, and told here too.
 */
function asRefusal(error: unknown, onError: (message: string) => void): Refusal {
  if (error instanceof Refusal) return error;
  const message = `an upload could not be stored: ${messageOf(error)}`;
  onError(message);
  const full = systemCode(error) === "ENOSPC" || systemCode(error) === "EDQUOT";
  return full ? new Refusal(413, "the disk that holds the journal is full") : new Refusal(403, message);
}
