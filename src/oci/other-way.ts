/**
 * Requests that there is another way for. All that a registry must answer rightly is what `docker push` and `docker
 * pull` ask of it, and the list of tags; what is asked beside that (HEAD, Range, conditions, DELETE) may be answered in
 * any way, and then the other way is taken.
 */
import { NixcacheError } from "../errors.ts";
import { throwIfAborted } from "./network.ts";
import { isFault, lastAnswer } from "./retry.ts";

/** Tries for such a request where it is answered by 5xx. The other way has all tries of the policy. */
export const FEW_ATTEMPTS = 3;

/** Whether it failed for what was answered, and not for the network, or a limit of requests. */
export function isOddAnswer(error: unknown): error is NixcacheError {
  if (!(error instanceof NixcacheError)) return false;
  return ["protocol", "denied", "corrupt"].includes(error.code) || isFault(lastAnswer(error)?.status);
}

/**
 * Undefined when it was answered in some way that is no answer.
 * @throws what the other way would meet as well: an interrupt, a network that fails, a limit of requests
 */
export async function orOtherWay<T>(
  ask: () => Promise<T>,
  ...signals: (AbortSignal | undefined)[]
): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    throwIfAborted(...signals);
    if (isOddAnswer(error)) return undefined;
    throw error;
  }
}
