// Axes of a grid: what differs from column to column and from row to row, as fields, values, labels and changes.

import { h } from "./dom.js";
import { titleOf, titleOfPaths } from "./pairs.js";
import { service } from "./service.js";

const MOST_VALUES = 12; // of one axis
const FEW = 4; // that are chosen at first

/** A kind of axis: `read` gives its values from its fields or raises an Error that says what to change. */
const numbers = (name, title, { example, least, most, whole = false, apply, label }) => ({
  name,
  title,
  fields: (values) => h("label", {}, `${title}s, divided by commas`, h("input", { name: "values", value: values?.join(", ") ?? example, autocomplete: "off" })),
  read: (place) => place.querySelector("[name=values]").value.split(/[\s,;]+/).filter(Boolean).map((text) => numberIn(text, { title, least, most, whole })),
  apply,
  label: label ?? ((value) => `${title.toLowerCase()} ${value}`),
});

function numberIn(text, { title, least, most, whole }) {
  const value = Number(text);
  if (!(value >= least && value <= most) || (whole && !Number.isInteger(value))) {
    throw new Error(`${title}: ${JSON.stringify(text)} is no ${whole ? "whole " : ""}number from ${least} to ${most}`);
  }
  return value;
}

export const KINDS = [
  {
    name: "none",
    title: "Nothing",
    fields: () => "",
    read: () => [null],
    apply: (values) => values,
    label: () => "",
  },
  {
    name: "checkpoint",
    title: "Checkpoint",
    fields: (chosen, model, base) => {
      const picker = h("pair-picker", { multiple: true });
      const choices = service.choices(model);
      picker.show(choices, "There are no LoRAs under lora_root.");
      picker.chosen = chosen ?? firstOf(choices, base);
      return picker;
    },
    read: (place) => place.querySelector("pair-picker").chosen.map(({ high, low }) => ({ high, low })),
    apply: (values, { high, low }) => ({ ...values, high, low }),
    label: ({ high, low }, model) => titleOfPaths(high, low, service.choices(model)),
  },
  numbers("strength", "Strength", {
    example: "0, 0.5, 1",
    least: -2,
    most: 2,
    apply: (values, strength) => ({ ...values, high_multiplier: strength, low_multiplier: strength }),
    label: (value) => `× ${value}`,
  }),
  numbers("seed", "Seed", {
    example: "1, 2, 3",
    least: 0,
    most: Number.MAX_SAFE_INTEGER,
    whole: true,
    apply: (values, seed) => ({ ...values, seed: String(seed) }),
  }),
  numbers("steps", "Step", {
    example: "8, 16, 25",
    least: 1,
    most: 150,
    whole: true,
    apply: (values, steps) => ({ ...values, sample_steps: steps }),
    label: (value) => `${value} steps`,
  }),
  numbers("guidance", "Guidance", {
    example: "1, 4, 7",
    least: 0,
    most: 20,
    apply: (values, guidance) => ({ ...values, guidance_scale: guidance }),
  }),
  numbers("shift", "Shift", {
    example: "3, 5, 8",
    least: 0.01,
    most: 100,
    apply: (values, shift) => ({ ...values, shift }),
  }),
  {
    name: "sampler",
    title: "Sampler",
    fields: () => h("p", { className: "hint" }, "UniPC and Euler, whatever the recipe takes."),
    read: () => ["unipc", "euler"],
    apply: (values, sampler) => ({ ...values, sampler }),
    label: (sampler) => ({ unipc: "UniPC", euler: "Euler" })[sampler],
  },
  {
    name: "recipe",
    title: "Recipe",
    fields: (_chosen, { draft }) => h("p", { className: "hint" }, `The reference server's frames, and those of the training previews${draft ? "; and a draft" : ""}.`),
    read: (_place, { draft }) => ["reference", "preview", ...(draft ? ["draft"] : [])],
    apply: (values, recipe) => ({ ...values, recipe }),
    label: (recipe) => recipe,
  },
  {
    name: "prompt",
    title: "Prompt",
    fields: (prompts, _model, { prompt }) => h("label", {}, "One prompt a line", h("textarea", { name: "values", rows: 4 }, prompts?.join("\n") ?? prompt)),
    read: (place) => place.querySelector("textarea").value.split("\n").map((line) => line.trim()).filter(Boolean),
    apply: (values, prompt) => ({ ...values, prompt }),
    label: (prompt) => prompt,
  },
];

export const kindOf = (name) => KINDS.find((kind) => kind.name === name);

// A first choice: the last checkpoints of the LoRA that is picked in "Make"; where it has one only, another LoRA beside it.
function firstOf(choices, { high, low }) {
  const own = choices.find((choice) => choice.high === high && choice.low === low) ?? choices[0];
  const same = choices.filter(({ name }) => name === own?.name);
  return same.length > 1 ? same.slice(-FEW) : choices.filter((choice) => choice === own || choice === choices.find((other) => other !== own));
}

/** Fills a <fieldset data-axis> with a choice of kinds and their fields; its `axis` is {kind, values}. */
export class AxisField {
  constructor(place, { kind, model, base, onChange }) {
    this.place = place;
    this.model = model;
    this.base = base;
    this.kind = h(
      "select",
      { "aria-label": place.querySelector("legend").textContent, onchange: () => (this.#show(), onChange()) },
      ...KINDS.map(({ name, title }) => h("option", { value: name }, title)),
    );
    this.fields = h("div", { className: "axis-fields" });
    this.fields.addEventListener("input", onChange);
    this.fields.addEventListener("pick", onChange);
    this.problem = h("p", { className: "axis-problem", role: "alert" });
    place.append(this.kind, this.fields, this.problem);
    this.axis = { kind };
  }

  get axis() {
    const kind = kindOf(this.kind.value);
    const values = kind.read(this.fields, this.model);
    if (!values.length) throw new Error(`${kind.title}: give at least one`);
    if (values.length > MOST_VALUES) throw new Error(`${kind.title}: ${values.length} are too many for a grid; give ${MOST_VALUES} at most`);
    return { kind: kind.name, values };
  }

  /** Return what is chosen; null where it cannot be read, and what is wrong stands beside the fields then. */
  get checked() {
    const field = this.fields.querySelector("[name=values]");
    try {
      const { axis } = this;
      this.problem.textContent = "";
      field?.removeAttribute("aria-invalid");
      return axis;
    } catch (error) {
      this.problem.textContent = error.message;
      field?.setAttribute("aria-invalid", "true");
      return null;
    }
  }

  /** What is chosen, as far as it can be read. */
  get kept() {
    try {
      return this.axis;
    } catch {
      return { kind: this.kind.value };
    }
  }

  set axis({ kind, values }) {
    this.kind.value = kind;
    this.#show(values);
  }

  #show(values) {
    this.problem.textContent = "";
    this.fields.replaceChildren(kindOf(this.kind.value).fields(values, this.model, this.base));
  }
}

/** Return the cells of a grid, row by row: {row, column, values, label}. Raise an Error where an axis would change nothing. */
export function cellsOf({ base, columns, rows }, model) {
  const kinds = [columns.kind, rows.kind];
  if (base.recipe === "draft" && kinds.includes("guidance")) throw new Error("Guidance: a draft has none; take another recipe");
  if (columns.kind === rows.kind && columns.kind !== "none") throw new Error(`${kindOf(rows.kind).title} stands across and down; choose another one`);
  const [across, down] = [kindOf(columns.kind), kindOf(rows.kind)];
  return rows.values.flatMap((row, y) =>
    columns.values.map((column, x) => ({
      row: y,
      column: x,
      values: across.apply(down.apply(base, row), column),
      label: [across.label(column, model), down.label(row, model)].filter(Boolean).join(", ") || titleOf({ name: "video", step: null }),
    })),
  );
}
