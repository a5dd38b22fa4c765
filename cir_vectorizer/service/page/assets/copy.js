// Copies texts to the clipboard.

import { element } from "./results.js";

// Copies a text; returns true on success. Over plain HTTP from another machine there is no `navigator.clipboard`.
async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  const before = document.activeElement;
  const area = element("textarea", { className: "unseen", value: text, readOnly: true });
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}

// A button that copies what `text()` returns, and says so.
export function copyButton(label, text) {
  const button = element("button", { type: "button", className: "small" }, label);
  button.addEventListener("click", async () => {
    const copied = await copyText(text()).catch(() => false);
    button.textContent = copied ? "Copied" : "Could not be copied";
  });
  button.setAttribute("aria-live", "polite");
  return button;
}
