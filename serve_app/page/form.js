// The settings form: its fields as values and back, what it says of them while they change.

import { call } from "./api.js";
import { count, duration, h, press, pressed, settled } from "./dom.js";
import { clearProblems, problemsOf, showProblems } from "./problems.js";
import { service } from "./service.js";
import { bodyOf, defaults, drawSeed, framesOf, isPair, keep, lorasOf, valuesOf } from "./settings.js";

const NUMBERS = ["high_multiplier", "low_multiplier", "width", "height", "num_frames", "fps", "sample_steps", "guidance_scale"];
const TEXTS = ["model", "prompt", "trigger_word", "neg", "high", "low", "seed", "sampler", "speed", "output_format", "fit"];
const SETTLES_MS = 250; // after the last key, before the service is asked
const SIZES = [
  [832, 480, "wide"],
  [480, 832, "tall"],
  [640, 640, "square"],
  [1280, 720, "720p"],
];
const DEMO_SIZE = [128, 128, "demo"];
const RECIPES = {
  reference: "The frames of the reference server, the base model's own sampler.",
  preview: "The frames that AI Toolkit showed while it trained: its sampler and its way to merge.",
  draft: "Few steps, with a LoRA for few steps beside yours: to find prompts and seeds quickly, not to judge a LoRA.",
};

/** Wires a form with the fields of the template `make`; calls `onChange` with nothing whenever a value has changed. */
export class SettingsForm {
  #image = "";
  #steps = null; // of the recipe before, while it is a draft

  constructor(form, onChange) {
    this.form = form;
    this.fields = form.elements;
    this.picker = form.querySelector("pair-picker");
    this.problem = form.querySelector(".problem");
    this.onChange = onChange;
    this.inspect = settled(() => this.#inspect(), SETTLES_MS);
    this.forecast = settled(() => this.#forecast(), SETTLES_MS);
    this.#listen();
    this.showModels();
  }

  get model() {
    return service.model(this.fields.model.value);
  }

  get body() {
    return bodyOf(this.values, this.model);
  }

  get values() {
    const { fields } = this;
    const values = {};
    for (const name of TEXTS) values[name] = fields[name].value.trim();
    for (const name of NUMBERS) values[name] = fields[name].value === "" ? null : Number(fields[name].value);
    values.shift = fields.shift.value === "" ? "" : Number(fields.shift.value);
    values.recipe = fields.recipe.value;
    values.ctrl_img = this.#image;
    if (pressed(fields.linked) || !isPair(this.model)) values.low_multiplier = values.high_multiplier;
    return values;
  }

  set values(values) {
    const { fields } = this;
    fields.model.value = service.model(values.model).id;
    this.#showModel();
    for (const name of [...TEXTS, ...NUMBERS, "shift", "recipe"]) {
      if (name !== "model" && name in values) fields[name].value = values[name] ?? "";
    }
    press(fields.linked, values.high_multiplier === values.low_multiplier);
    this.#showLink();
    this.#setImage(values.ctrl_img ?? "");
    this.#pickByPaths();
    this.#changed();
    this.inspect();
  }

  /** Fill in a body of the API, over what is there for what it does not say. */
  restore(body) {
    this.values = valuesOf(body, defaults(service.model(body.model)));
  }

  /** Show the service's models and LoRAs, which have changed. */
  showModels() {
    const chosen = this.fields.model.value;
    this.fields.model.replaceChildren(...service.models.map(({ id, title }) => h("option", { value: id }, title)));
    this.fields.model.value = service.model(chosen).id;
    this.form.querySelector("[data-when=models]").hidden = service.models.length < 2;
    this.#showModel();
  }

  /** Draw a new seed unless it is locked. */
  nextSeed() {
    if (!pressed(this.fields.locked)) this.fields.seed.value = drawSeed();
  }

  #listen() {
    const { fields, form } = this;
    form.addEventListener("input", (event) => this.#edited(event.target));
    form.addEventListener("pick", () => this.#picked());
    fields.model.addEventListener("change", () => (this.values = { ...defaults(this.model), prompt: fields.prompt.value }));
    fields.ctrl_img.addEventListener("change", () => this.useImage(fields.ctrl_img.files[0]));
    fields.clear_image.addEventListener("click", () => (this.#setImage(""), this.#changed()));
    fields.linked.addEventListener("click", () => (press(fields.linked, !pressed(fields.linked)), this.#showLink(), this.#changed()));
    fields.locked.addEventListener("click", () => press(fields.locked, !pressed(fields.locked)));
    fields.dice.addEventListener("click", () => ((fields.seed.value = drawSeed()), this.#changed()));
    fields.prompt.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
  }

  #edited(field) {
    const { fields } = this;
    if (field === fields.seconds && field.value) fields.num_frames.value = framesOf(Number(field.value), Number(fields.fps.value));
    if (field === fields.high || field === fields.low) this.#pickByPaths();
    if (["high", "low"].includes(field.name)) this.inspect();
    if (field === fields.high_multiplier) this.#showLink();
    if (field.name === "recipe") this.#takeStepsOf(field.value);
    this.#changed(field);
  }

  // A draft has steps of its own, and those of before come back after it.
  #takeStepsOf(recipe) {
    const { sample_steps: steps } = this.fields;
    if (recipe === "draft") [this.#steps, steps.value] = [steps.value, this.model.draft.sample_steps];
    else if (this.#steps !== null) [this.#steps, steps.value] = [null, this.#steps];
  }

  #changed(field) {
    const { fields } = this;
    if (field !== fields.seconds) fields.seconds.value = Math.round(((fields.num_frames.value - 1) / fields.fps.value) * 100) / 100;
    this.form.querySelector("#recipe-hint").textContent = RECIPES[fields.recipe.value];
    fields.guidance_scale.disabled = fields.recipe.value === "draft"; // which has none
    for (const chip of this.form.querySelectorAll("#sizes button")) {
      press(chip, chip.dataset.size === `${fields.width.value}x${fields.height.value}`);
    }
    keep(this.values);
    this.forecast();
    this.onChange();
  }

  #showModel() {
    const { form, model } = this;
    const pair = isPair(model);
    form.querySelectorAll("[data-when=pair]").forEach((element) => (element.hidden = !pair));
    form.querySelector("[data-when=image]").hidden = model.control_image === "none";
    form.querySelector("[data-when=draft]").hidden = !model.draft;
    if (!model.draft && this.fields.recipe.value === "draft") this.fields.recipe.value = "reference";
    form.querySelector('[data-label="high"]').textContent = pair ? "High noise" : "LoRA file";
    form.querySelector('[data-label="high_multiplier"]').textContent = pair ? "Strength, high" : "Strength";
    const speeds = model.speeds.map((speed) => h("option", { value: speed }, speed));
    this.fields.speed.replaceChildren(h("option", { value: "" }, `as served (${model.default_speed})`), ...speeds);
    form.querySelector("#lora-files").replaceChildren(...service.loras.files.map(({ path }) => h("option", { value: path })));
    this.#showSizes();
    this.picker.show(service.choices(model), this.#whereFrom(), service.unusable);
    this.#pickByPaths();
  }

  #whereFrom() {
    const put = service.loras.uploads_allowed ? "Drop LoRA files here, or put them" : "Put LoRA files";
    return `${put} under the server's lora_root, and they are listed here. A LoRA from elsewhere is named under Files.`;
  }

  #showSizes() {
    const { default_width: width, default_height: height } = this.model;
    const own = SIZES.some(([w, tall]) => w === width && tall === height) ? [] : [[width, height, "default"]];
    const chips = [...(this.model.demo ? [DEMO_SIZE] : own), ...SIZES].map(([w, tall, name]) =>
      h("button", { type: "button", className: "chip", "data-size": `${w}x${tall}`, "aria-pressed": "false", onclick: () => this.#setSize(w, tall) }, name, h("small", {}, `${w} × ${tall}`)),
    );
    this.form.querySelector("#sizes").replaceChildren(...chips);
  }

  #setSize(width, height) {
    this.fields.width.value = width;
    this.fields.height.value = height;
    this.#changed();
  }

  #showLink() {
    const linked = pressed(this.fields.linked);
    this.fields.low_multiplier.disabled = linked;
    if (linked) this.fields.low_multiplier.value = this.fields.high_multiplier.value;
  }

  #picked() {
    const [choice] = this.picker.chosen;
    this.fields.high.value = choice.high;
    this.fields.low.value = choice.low;
    this.inspect();
    this.#changed();
  }

  #pickByPaths() {
    const { high, low } = this.fields;
    this.picker.chosen = [{ high: high.value.trim(), low: low.value.trim() }];
  }

  /** Take an image file as the control image. */
  async useImage(file) {
    if (!file) return;
    const reader = new FileReader();
    await new Promise((resolve) => ((reader.onload = resolve), reader.readAsDataURL(file)));
    this.#setImage(reader.result);
    this.#changed();
  }

  #setImage(image) {
    const panel = this.form.querySelector(".control-image");
    this.#image = image;
    panel.hidden = !image;
    if (image.startsWith("data:")) panel.querySelector("img").src = image;
    if (!image) this.fields.ctrl_img.value = "";
  }

  /** Show the result of snapping, what it will cost, and what looks like a mistake. */
  async #forecast() {
    const cost = this.fields.cost;
    const snapped = this.form.querySelector("#snapped");
    if (!this.fields.high.value && !this.fields.low.value) {
      cost.value = "Pick a LoRA first.";
      snapped.textContent = "";
      return;
    }
    this.asked?.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    const { body } = this;
    try {
      const { seconds, eta_seconds: eta, prompts } = await call("POST", "v1/forecast", body, { signal });
      clearProblems(this.form, this.problem);
      const [{ width, height, num_frames: frames, warnings }] = prompts;
      snapped.replaceChildren(`Renders ${width} × ${height}, ${count(frames, "frame")}`, ...warnings.map((text) => h("span", { className: "warning" }, text)));
      const waits = duration(eta) === duration(seconds) ? "" : `, done in ${duration(eta)}`;
      cost.value = `${capital(duration(seconds))} to render${waits}`;
    } catch (error) {
      if (signal.aborted) return;
      cost.value = "";
      snapped.textContent = "";
      // Inspection says what is wrong with a LoRA, in its own place.
      const problems = problemsOf(error, body).filter(({ field }) => field !== "high" && field !== "low");
      showProblems(this.form, problems, this.problem, { focus: false });
    }
  }

  /** Show what inspection says of the chosen files. */
  async #inspect() {
    const place = this.form.querySelector(".inspection");
    const loras = lorasOf(this.values, this.model);
    if (!loras.length) return place.replaceChildren();
    this.inspecting?.abort();
    this.inspecting = new AbortController();
    const { signal } = this.inspecting;
    try {
      place.replaceChildren(...inspectionLines(await call("POST", "v1/loras/inspect", { loras, model: this.model.id }, { signal })));
    } catch (error) {
      if (!signal.aborted) place.replaceChildren(h("p", { className: "warning" }, error.message));
    }
  }
}

function inspectionLines({ files, warnings }) {
  const lines = files.flatMap(({ transformer, report, error }) => {
    const side = transformer ? `${capital(transformer)}: ` : "";
    if (error) return [h("p", { className: "field-problem" }, side + error.message)];
    return report.warnings.map((text) => h("p", { className: "warning" }, side + text));
  });
  const known = files.find(({ report }) => report)?.report;
  const facts = known && h("p", { className: "hint" }, factsOf(known));
  return [facts, ...lines, ...warnings.map((text) => h("p", { className: "warning" }, text))].filter(Boolean);
}

function factsOf(report) {
  const ranks = report.parts.map(({ ranks: found }) => found).filter(Boolean);
  const rank = ranks.length ? `rank ${Math.min(...ranks.map(({ min }) => min))}${rangeEnd(ranks)}` : null;
  const advice = report.recommended && `its previews: recipe ${report.recommended.recipe}, ${report.recommended.sampler}`;
  return [report.layout, rank, advice].filter(Boolean).join(" · ");
}

function rangeEnd(ranks) {
  const [least, most] = [Math.min(...ranks.map(({ min }) => min)), Math.max(...ranks.map(({ max }) => max))];
  return most > least ? `–${most}` : "";
}

function capital(text) {
  return text[0].toUpperCase() + text.slice(1);
}
