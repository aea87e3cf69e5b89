import type { Adoption } from "../protocol/adopt.ts";
import { formatCount } from "./format.ts";

export function adoptionLine({ paths, leftOut }: Adoption, cacheName: string): string {
  const rest = leftOut === 0 ? "" : `; ${formatCount(leftOut, "path")} could not be`;
  return `adopted ${formatCount(paths, "path")} of nixcache-oci in ${cacheName}, uploading nothing again${rest}`;
}
