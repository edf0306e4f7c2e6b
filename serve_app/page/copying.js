// "Copy as": the settings of a video as a command, a program or JSON, in a dialog.

import { announce, copy, h } from "./dom.js";
import { asText } from "./settings.js";

/** Show a body of the API in each form, to be copied. */
export function showText(body) {
  const texts = asText(withoutImage(body));
  const place = h("pre", { tabIndex: 0, "aria-label": "Text" });
  const tabs = h("div", { className: "segments", role: "radiogroup", "aria-label": "Copy as" });
  const show = (name) => (place.textContent = texts[name]);
  for (const [at, name] of Object.keys(texts).entries()) {
    tabs.append(h("label", {}, h("input", { type: "radio", name: "text", checked: at === 0, onchange: () => show(name) }), h("span", {}, name)));
  }
  show("curl");
  const button = h("button", {
    type: "button",
    className: "primary",
    onclick: async () => {
      await copy(place.textContent);
      button.textContent = "Copied";
      announce("Copied");
    },
  }, "Copy");
  const dialog = h(
    "dialog",
    { className: "text-dialog", "aria-label": "Copy these settings", onclose: () => dialog.remove() },
    tabs,
    place,
    h("div", { className: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Close"), button),
  );
  tabs.addEventListener("change", () => (button.textContent = "Copy"));
  document.body.append(dialog);
  dialog.showModal();
}

// A data URL has megabytes: the text names a place for it instead.
function withoutImage(body) {
  const prompts = body.prompts.map((prompt) =>
    prompt.ctrl_img?.startsWith("data:") ? { ...prompt, ctrl_img: "BASE64 OF YOUR IMAGE" } : prompt,
  );
  return { ...body, prompts };
}
