/** Buttons that copy a text. */

const SHOWN_MS = 2_000;

export function startCopyButtons(): void {
  for (const button of document.querySelectorAll<HTMLButtonElement>("button[data-copy]")) {
    const source = document.getElementById(button.dataset.copy ?? "");
    if (source === null) continue;
    button.hidden = false;
    button.addEventListener("click", () => void copy(button, source));
  }
}

async function copy(button: HTMLButtonElement, source: HTMLElement): Promise<void> {
  const copied = await write(source);
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => {
    button.textContent = "Copy";
  }, SHOWN_MS);
}

/** Browsers give the clipboard to HTTPS and to this machine alone; elsewhere the text is selected and copied as by hand. */
async function write(source: HTMLElement): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(`${source.textContent}\n`);
    return true;
  } catch {
    getSelection()?.selectAllChildren(source);
    return document.execCommand("copy");
  }
}
