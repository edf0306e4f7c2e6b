// The view "Compare": which grid, what it will cost, and the grid itself.

import { call, get } from "./api.js";
import { AxisField, cellsOf } from "./axes.js";
import { count, duration, h, settled, template } from "./dom.js";
import { read } from "./link.js";
import { titleOfPaths } from "./pairs.js";
import { clearProblems, problemsOf, showProblems } from "./problems.js";
import { service } from "./service.js";
import { bodyOf, defaults } from "./settings.js";
import "./grid.js";

const SETTLES_MS = 250;

/** <compare-view>: `begin(values)` starts from the settings of "Make", `open(text)` from a link. */
class CompareView extends HTMLElement {
  connectedCallback() {
    if (this.form) return;
    this.append(template("compare"));
    this.form = this.querySelector("form");
    this.problem = this.form.querySelector(".problem");
    this.area = this.querySelector(".grid-area");
    this.grid = h("video-grid");
    this.forecast = settled(() => this.#forecast(), SETTLES_MS);
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.#render()));
    this.form.elements.prompt.addEventListener("input", () => this.#changed());
    this.addEventListener("link", ({ detail }) => this.#showLink(detail));
  }

  /** Go on from these values of "Make", if they have changed; a grid keeps its axes. With `anew`, start from them, and say what they are `without`. */
  begin(values, { anew = false, without = [] } = {}) {
    const from = JSON.stringify(values);
    const opened = this.base && this.from === undefined; // a link says what the grid begins with
    if (!anew && (from === this.from || opened)) return;
    const axes = this.base && !anew ? [this.columns.kept, this.rows.kept] : firstAxes(values);
    if (anew) this.grid.remove();
    this.#use(values);
    this.querySelector("#grid-base").append(...without.map((text) => h("span", { className: "warning" }, text)));
    this.from = from;
    [this.columns.axis, this.rows.axis] = axes;
    this.#changed();
  }

  /** Open a link, unless it is the one that is open. */
  async open(text) {
    if (text === this.link) return;
    try {
      const grid = await read(text);
      if (!service.serves(grid.base.model)) throw new Error(`This grid is of the model ${grid.base.model}, which this service does not serve.`);
      this.link = text;
      await this.#show(grid);
    } catch (error) {
      this.area.replaceChildren(h("p", { className: "notice", role: "alert" }, error.message));
    }
  }

  async #show(grid) {
    this.#use({ ...defaults(service.model(grid.base.model)), ...grid.base, ctrl_img: await imageOf(grid) });
    this.columns.axis = grid.columns;
    this.rows.axis = grid.rows;
    this.area.replaceChildren(this.grid);
    this.#changed();
    await this.grid.start({ ...grid, base: this.base }, { render: false });
    this.#changed();
  }

  #use(values) {
    this.base = values;
    const model = service.model(values.model);
    for (const place of this.querySelectorAll("[data-axis]")) {
      place.replaceChildren(place.querySelector("legend"));
      this[place.dataset.axis] = new AxisField(place, { kind: "none", model, base: values, onChange: () => this.#changed() });
    }
    this.form.elements.prompt.value = values.prompt;
    const pair = titleOfPaths(values.high, values.low, service.choices(model));
    const guidance = values.recipe === "draft" ? "no guidance" : `guidance ${values.guidance_scale}`;
    this.querySelector("#grid-base").replaceChildren(
      `${model.title} · ${pair} · ${values.width} × ${values.height}, ${count(values.num_frames, "frame")} · ${values.sample_steps} steps · ${guidance} · seed ${values.seed} · ${values.recipe} `,
      h("a", { href: "#/make", onclick: (event) => (event.preventDefault(), this.#change()) }, "Change"),
    );
  }

  // To "Make" with the grid's own settings, from where they come back.
  #change() {
    this.from = null;
    const body = bodyOf({ ...this.base, prompt: this.form.elements.prompt.value }, service.model(this.base.model));
    this.dispatchEvent(new CustomEvent("reuse", { bubbles: true, detail: { body } }));
  }

  /** Return the grid that is asked for, with its `cells`; null where there is none, and the page says why. */
  #wanted() {
    clearProblems(this.form, this.problem);
    const [columns, rows] = [this.columns, this.rows].map(({ checked }) => checked);
    if (!columns || !rows) return null;
    const wanted = { base: { ...this.base, prompt: this.form.elements.prompt.value.trim() }, columns, rows };
    try {
      return { ...wanted, cells: cellsOf(wanted, service.model(wanted.base.model)) };
    } catch (error) {
      this.problem.append(h("p", {}, error.message));
      return null;
    }
  }

  #changed() {
    const byAxis = [this.columns, this.rows].some(({ kind }) => kind.value === "prompt");
    this.form.elements.prompt.closest("label").hidden = byAxis;
    this.forecast();
  }

  async #forecast() {
    const { cost } = this.form.elements;
    const wanted = this.#wanted();
    if (!wanted) return (cost.value = "");
    const { base, cells } = wanted;
    const model = service.model(base.model);
    this.form.querySelector("[type=submit]").textContent = `Render ${count(cells.length, "video")}`;
    const body = bodyOf(cells[0].values, model);
    this.asked?.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    try {
      const prompts = cells.map(({ values }) => bodyOf(values, model).prompts[0]);
      const { seconds } = await call("POST", "v1/forecast", { ...body, prompts }, { signal });
      cost.value = `${count(cells.length, "video")}, ${duration(seconds)} of rendering`;
    } catch (error) {
      if (signal.aborted) return;
      cost.value = "";
      showProblems(this.form, problemsOf(error, body), this.problem, { focus: false });
    }
  }

  async #render() {
    const button = this.form.querySelector("[type=submit]");
    const wanted = this.#wanted();
    if (!wanted) return;
    button.disabled = true;
    this.area.replaceChildren(this.grid);
    try {
      await this.grid.start(wanted, { render: true });
    } catch (error) {
      showProblems(this.form, problemsOf(error, error.body), this.problem);
    } finally {
      button.disabled = false;
    }
  }

  #showLink(text) {
    this.link = text;
    if (!this.hidden) history.replaceState(null, "", text ? `#/compare/${text}` : "#/compare");
  }

  /** Play while the view is shown. */
  set shown(shown) {
    this.grid.playing = shown;
  }
}

function firstAxes({ model }) {
  const several = service.choices(service.model(model)).length > 1;
  return [{ kind: "strength" }, { kind: several ? "checkpoint" : "seed" }];
}

// The image is too large for an address; the service keeps it with each request.
async function imageOf({ base, ids }) {
  if (service.model(base.model).control_image === "none") return "";
  const id = ids.find(Boolean);
  if (!id) return "";
  const { request } = await get(`v1/requests/${id}`).catch(() => ({ request: { prompts: [{}] } }));
  return request.prompts[0].ctrl_img ?? "";
}

customElements.define("compare-view", CompareView);
