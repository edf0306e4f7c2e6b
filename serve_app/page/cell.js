// One cell of a grid: what it asks for, how far it is, and its video.

import { announce, h } from "./dom.js";
import { plays, shown } from "./media.js";

const STATES = { idle: "not rendered yet", in_queue: "waiting", canceled: "canceled", gone: "no longer kept" };

/** A cell: `values`, `label`, `id` of its request, `clip` {width, height, element()} once there is one; `element` is its button. */
export class Cell {
  id = null;
  clip = null;
  state = "idle";

  constructor({ row, column, values, label }, onOpen) {
    Object.assign(this, { row, column, values, label });
    this.picture = h("span", { className: "cell-picture" });
    this.note = h("span", { className: "cell-note" });
    this.bar = h("progress", { max: 1, value: 0, hidden: true, "aria-label": `Progress of ${label}` });
    this.element = h("button", { type: "button", className: "cell", onclick: () => onOpen(this) }, this.picture, this.note);
    this.holder = h("div", { className: "cell-holder" }, this.element, this.bar);
    this.holder.style.aspectRatio = `${values.width} / ${values.height}`;
    this.show("idle");
  }

  get finished() {
    return this.clip !== null;
  }

  /** Show a state, with a text that says more. */
  show(state, text = STATES[state] ?? "") {
    this.state = state;
    this.holder.dataset.state = state;
    this.note.textContent = text;
    this.element.setAttribute("aria-label", `${this.label}: ${text || "finished; opens the comparison"}`);
    this.element.setAttribute("aria-disabled", String(state !== "succeeded"));
    this.bar.hidden = state !== "in_progress";
  }

  /** Show a status of the API. */
  update({ status, progress, queue_position: position, error }) {
    if (status === "succeeded") return;
    this.bar.value = progress;
    const texts = { in_queue: position ? `waits for ${position}` : "next", in_progress: `${Math.round(progress * 100)} %`, failed: error };
    this.show(status, texts[status]);
  }

  /** Show an event of the API. */
  hear(event, data) {
    if (event === "step") this.update({ status: "in_progress", ...data });
    if (event === "preview") this.picture.replaceChildren(h("img", { src: data.image, alt: "" }));
  }

  /** Show its video; return the element to be played, or null. */
  play(video) {
    const { width, height } = video;
    this.clip = { width, height, element: () => shown(video, this.label, { controls: false }) };
    const element = this.clip.element();
    element.removeAttribute("aria-label");
    this.holder.style.aspectRatio = `${video.width} / ${video.height}`;
    this.picture.replaceChildren(element);
    this.show("succeeded", "");
    announce(`${this.label} is finished`);
    return plays(element) ? element : null;
  }
}
