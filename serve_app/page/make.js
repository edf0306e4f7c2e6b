// The view "Make": the settings at one side, and at the other the videos that they become.

import { submit } from "./api.js";
import { h, template } from "./dom.js";
import { SettingsForm } from "./form.js";
import { clearProblems, problemsOf, showProblems } from "./problems.js";
import { service } from "./service.js";
import { defaults, demoDefaults, kept, leftOut } from "./settings.js";
import "./watch.js";

const MOST_CARDS = 8;
const DEMO_LORA = "_demo"; // ends the name of the LoRA that a demo begins with

/** <make-view>: fires "compare" with the values that a grid begins with. */
class MakeView extends HTMLElement {
  connectedCallback() {
    if (this.form) return;
    this.append(template("make"));
    this.form = this.querySelector("form");
    this.stage = this.querySelector(".stage");
    this.problem = this.form.querySelector(".problem");
    this.leftOut = this.form.querySelector(".left-out");
    this.settings = new SettingsForm(this.form, () => {});
    this.settings.values = this.#first();
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.#make()));
    this.stage.addEventListener("reuse", (event) => this.restore(event.detail.body));
    service.addEventListener("loras", () => this.settings.showModels());
  }

  /** Fill in a body of the API. */
  restore(body) {
    this.settings.restore(body);
    this.leftOut.replaceChildren(...leftOut(body, service.serves(body.model)).map((text) => h("p", { className: "warning" }, text)));
    this.form.elements.prompt.focus({ preventScroll: true });
    this.form.scrollIntoView({ block: "start" });
  }

  #first() {
    const before = kept();
    const model = service.model(before?.model);
    const base = model.demo ? demoDefaults(model) : defaults(model);
    const choices = service.choices(model);
    const choice = choices.find(({ name }) => model.demo && name.endsWith(DEMO_LORA)) ?? newest(choices);
    return { ...base, ...(choice && { high: choice.high, low: choice.low }), ...before };
  }

  async #make() {
    const button = this.form.querySelector("button[type=submit]");
    const { body } = this.settings;
    clearProblems(this.form, this.problem);
    this.leftOut.replaceChildren();
    button.disabled = true;
    try {
      const { request_id: id } = await submit({ ...body, preview: true });
      this.show(id);
      this.settings.nextSeed();
    } catch (error) {
      showProblems(this.form, problemsOf(error, body), this.problem);
    } finally {
      button.disabled = false;
    }
  }

  /** Show a request at the top of the stage. */
  show(id) {
    const card = document.createElement("render-card");
    card.setAttribute("request", id);
    this.stage.prepend(card);
    [...this.stage.children].slice(MOST_CARDS).forEach((old) => old.remove());
    if (matchMedia("(max-width: 60rem)").matches) card.scrollIntoView({ behavior: "smooth", block: "start" });
  }
}

function newest(choices) {
  return choices.reduce((best, choice) => (best && best.modifiedAt >= choice.modifiedAt ? best : choice), null);
}

customElements.define("make-view", MakeView);
