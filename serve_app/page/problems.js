// Refusals beside the fields that they are about.

import { h } from "./dom.js";

const OF_CODE = {
  MODEL_NOT_FOUND: "model",
  SPEED_NOT_ALLOWED: "speed",
  PROMPT_TOO_LONG: "prompt",
  PROMPT_FLAG_REFUSED: "prompt",
  PATH_NOT_FOUND: "model",
};
const LORA = /^(LORA_|MOE_|SINGLE_(MOE|LORA))/;
const IMAGE = /^(SINGLE_)?CONTROL_IMAGE/;

const ROWS = ".row, .strengths, .pair"; // of fields beside each other: too narrow for a sentence between them

/** Return [{field, message}] of a refusal of `body`; `field` is null where it is about none. A `nameless` message names no field. */
export function problemsOf(refusal, body) {
  if (refusal.problems.length) {
    return refusal.problems.map(({ loc, msg }) => ({ field: fieldAt(loc, body), message: msg.replace(/^Input should/, "should"), nameless: true }));
  }
  return [{ field: fieldOfCode(refusal, body), message: refusal.message }];
}

function fieldAt([, ...location], body) {
  if (location[0] === "loras") return location.length > 1 ? loraField(body.loras[location[1]], location[2]) : "high";
  return location[0] === "prompts" ? (location[2] ?? null) : (location[0] ?? null);
}

function loraField(item, name) {
  const side = item?.transformer ?? "high";
  return name === "network_multiplier" ? `${side}_multiplier` : side;
}

function fieldOfCode({ code, details }, body) {
  if (code in OF_CODE) return OF_CODE[code];
  if (IMAGE.test(code)) return "ctrl_img";
  if (!LORA.test(code ?? "")) return null;
  const named = JSON.stringify(details);
  return loraField(body.loras.find(({ path }) => path && named.includes(JSON.stringify(path).slice(1, -1))));
}

/** Show problems in a form: beside their fields, and those of no field in `elsewhere`. With `focus`, go to the first. */
export function showProblems(form, problems, elsewhere, { focus = true } = {}) {
  clearProblems(form, elsewhere);
  const shown = problems.map(({ field, message, nameless }) => {
    const input = field && form.elements[field];
    const single = input && !(input instanceof RadioNodeList);
    const text = nameless && field ? `${single ? labelOf(input) : field.replaceAll("_", " ")}: ${message}` : message;
    if (single) mark(input, text);
    else elsewhere.append(h("p", {}, text));
    return single ? input : null;
  });
  const first = shown.find(Boolean);
  if (!focus || !first) return;
  first.closest("details")?.setAttribute("open", "");
  first.focus();
}

/** Take all problems away. */
export function clearProblems(form, elsewhere) {
  elsewhere.replaceChildren();
  form.querySelectorAll(".field-problem").forEach((text) => text.remove());
  form.querySelectorAll("[aria-invalid]").forEach(unmark);
}

function labelOf(input) {
  return input.closest("label")?.firstChild.textContent.trim() ?? input.name;
}

function mark(input, message) {
  const id = `problem-${input.name}`;
  input.setAttribute("aria-invalid", "true");
  input.setAttribute("aria-errormessage", id);
  let place = input.closest(ROWS) ?? input.closest("label") ?? input;
  while (place.nextElementSibling?.matches(".field-problem")) place = place.nextElementSibling;
  place.after(h("p", { className: "field-problem", id, role: "alert" }, message));
  input.addEventListener("input", () => unmark(input), { once: true });
}

function unmark(input) {
  input.removeAttribute("aria-invalid");
  input.removeAttribute("aria-errormessage");
  document.getElementById(`problem-${input.name}`)?.remove();
}
