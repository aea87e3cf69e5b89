/** The page in the browser. */
import { startCopyButtons } from "./copy.ts";
import { byId } from "./dom.ts";
import { startOverview } from "./overview.ts";
import { startPaths } from "./paths.ts";
import { startPublishes } from "./publishes.ts";

const picker = byId<HTMLSelectElement>("cache");
// A browser that comes back may remember another choice than the one that is shown.
picker.value = "0";
const cache = () => picker.value;

showOwnAddress();
startCopyButtons();
const showPaths = startPaths(cache);
const showPublishes = startPublishes(cache);

picker.addEventListener("change", () => {
  showPublishes();
  showPaths();
});
startOverview({
  publishes: (changed) => {
    if (String(changed) === cache()) showPublishes();
  },
  paths: (changed) => {
    if (String(changed) === cache()) showPaths();
  },
});

/** Behind a proxy the server does not know by which address it is reached. */
function showOwnAddress(): void {
  const own = new URL(".", location.href).href.replace(/\/$/, "");
  for (const lines of document.querySelectorAll<HTMLElement>("[data-origin]")) {
    const stated = lines.dataset.origin ?? "";
    if (stated !== own) lines.textContent = (lines.textContent ?? "").replaceAll(stated, own);
  }
}
