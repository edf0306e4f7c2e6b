// Pair picker: what lies under `lora_root`, by name and training step. One choice, or several with `multiple`.

import { h, stem } from "./dom.js";
import { isPair } from "./settings.js";

const MANY = 8; // names, above which there is a search field

/**
 * Return the choices for a model, by name and then by step: {name, step, rank, modifiedAt, partial, high, low}. A side that a pair
 * lacks is an empty text; for a model with one expert, `high` is the file.
 */
export function choicesFor({ pairs, files }, model) {
  const fitting = (isPair(model) ? pairs : files).filter(({ models }) => models.includes(model.id));
  return fitting.map((found) => (isPair(model) ? ofPair(found) : ofFile(found))).sort(byNameAndStep);
}

function ofPair({ name, step, high, low }) {
  const file = high ?? low;
  const partial = high && low ? "" : `${high ? "high" : "low"} only`;
  return { name, step, rank: file.rank, modifiedAt: file.modified_at, partial, high: high?.path ?? "", low: low?.path ?? "" };
}

function ofFile({ name, step, path, rank, modified_at: modifiedAt }) {
  return { name, step, rank, modifiedAt, partial: "", high: path, low: "" };
}

function byNameAndStep(one, other) {
  return one.name.localeCompare(other.name) || (one.step ?? Infinity) - (other.step ?? Infinity);
}

/** Return what a choice is called: "hero 1500". */
export function titleOf({ name, step }) {
  const short = name.split("/").pop();
  return step === null ? short : `${short} ${step}`;
}

/** Return what the LoRAs of a request are called, by their paths. */
export function titleOfPaths(high, low, choices) {
  const found = choices.find((choice) => choice.high === high && choice.low === low);
  return found ? titleOf(found) : stem(high || low || "none");
}

/** <pair-picker>: shows `choices`; its `chosen` are {high, low}; fires "pick". */
class PairPicker extends HTMLElement {
  #choices = [];
  #chosen = [];
  #search = "";

  /** Show these choices; `empty` says where they come from if there are none. `unusable` are files: {path, problem}. */
  show(choices, empty = "", unusable = []) {
    this.#choices = choices;
    this.empty = empty;
    this.unusable = unusable;
    this.#render();
  }

  get chosen() {
    return this.#chosen;
  }

  set chosen(chosen) {
    this.#chosen = chosen;
    for (const input of this.querySelectorAll("input[name=pair]")) {
      input.checked = this.#isChosen(this.#choices[input.value]);
    }
  }

  #isChosen({ high, low }) {
    return this.#chosen.some((chosen) => chosen.high === high && chosen.low === low);
  }

  #render() {
    const names = Map.groupBy(this.#choices, ({ name }) => name);
    const search = h("input", {
      type: "search",
      "aria-label": "Find a LoRA",
      placeholder: "Find a LoRA",
      value: this.#search,
      oninput: () => this.#filter(search.value),
    });
    const list = h("div", {
      className: "pairs",
      role: this.hasAttribute("multiple") ? "group" : "radiogroup",
      "aria-label": "LoRA",
    });
    list.append(...[...names].map(([name, choices]) => this.#row(name, choices)));
    const shown = names.size ? list : h("p", { className: "hint" }, this.empty);
    this.replaceChildren(...(names.size > MANY ? [search] : []), shown, ...this.#refused());
    this.#filter(this.#search);
  }

  #refused() {
    const files = this.unusable;
    if (!files.length) return [];
    const title = files.length === 1 ? "One file cannot be used" : `${files.length} files cannot be used`;
    const reasons = files.map(({ path, problem }) => h("li", {}, h("code", {}, path), `: ${problem}`));
    return [h("details", { className: "hint" }, h("summary", {}, title), h("ul", {}, ...reasons))];
  }

  #row(name, choices) {
    const rank = choices[0].rank;
    return h(
      "div",
      { className: "pair-row", "data-name": name.toLowerCase() },
      h("span", { className: "pair-name", title: name }, name.split("/").pop(), rank && h("small", {}, `rank ${rank}`)),
      h("span", { className: "steps" }, ...choices.map((choice) => this.#choice(choice))),
    );
  }

  #choice(choice) {
    const input = h("input", {
      type: this.hasAttribute("multiple") ? "checkbox" : "radio",
      name: "pair",
      value: String(this.#choices.indexOf(choice)),
      checked: this.#isChosen(choice),
      "aria-label": titleOf(choice),
      onchange: () => this.#pick(),
    });
    const partial = choice.partial && h("small", {}, ` ${choice.partial}`);
    return h("label", { className: "chip" }, input, h("span", {}, choice.step === null ? "final" : String(choice.step), partial));
  }

  #pick() {
    const inputs = [...this.querySelectorAll("input[name=pair]:checked")];
    this.#chosen = inputs.map((input) => this.#choices[input.value]);
    this.dispatchEvent(new Event("pick", { bubbles: true }));
  }

  #filter(text) {
    this.#search = text;
    for (const row of this.querySelectorAll(".pair-row")) {
      row.hidden = !row.dataset.name.includes(text.trim().toLowerCase());
    }
  }
}

customElements.define("pair-picker", PairPicker);
