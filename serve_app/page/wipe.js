// Two videos of a grid, large: side by side, with a wipe over one another, or their difference.

import { Conductor } from "./conductor.js";
import { h } from "./dom.js";
import { shown } from "./media.js";

const MODES = { side: "Side by side", wipe: "Wipe", difference: "Difference" };
let mode = "wipe"; // as it was used last

/** Show cells {label, video, values} `left` and `right` of `cells`; arrow keys go on to others. */
export function comparePair(cells, left, right) {
  const conductor = new Conductor(cells[right].values.fps);
  const view = { cells, sides: [left, right], conductor };
  const stage = h("div", { className: "duel" });
  const wipe = h("input", { type: "range", min: 0, max: 100, value: "50", step: "any", className: "wipe", "aria-label": "Wipe between the two" });
  const choose = ["A", "B"].map((name, side) => chooser(name, side, view, () => draw(view, stage)));
  const modes = h("div", { className: "segments", role: "radiogroup", "aria-label": "How to compare" });
  for (const [name, title] of Object.entries(MODES)) {
    const change = () => ((mode = name), setMode(stage, wipe));
    modes.append(h("label", {}, h("input", { type: "radio", name: "mode", checked: name === mode, onchange: change }), h("span", {}, title)));
  }
  const dialog = h(
    "dialog",
    { className: "duel-dialog", "aria-label": "Compare two", onclose: () => (conductor.stop(), dialog.remove()) },
    h("div", { className: "duel-head" }, choose[0], modes, choose[1], h("button", { type: "button", className: "quiet", onclick: () => dialog.close() }, "Close")),
    h("div", { className: "duel-stage" }, stage, wipe),
    conductor.bar,
  );
  wipe.addEventListener("input", () => stage.style.setProperty("--wipe", `${wipe.value}%`));
  stage.addEventListener("pointermove", (event) => mode === "wipe" && follow(event, stage, wipe));
  dialog.addEventListener("keydown", (event) => onKey(event, view, choose));
  document.body.append(dialog);
  setMode(stage, wipe);
  draw(view, stage);
  dialog.showModal();
  return dialog;
}

function chooser(name, side, view, onChange) {
  const options = view.cells.map(({ label }, at) => h("option", { value: at, selected: at === view.sides[side] }, label));
  const select = h("select", { "aria-label": `Video ${name}`, onchange: () => ((view.sides[side] = Number(select.value)), onChange()) }, ...options);
  return h("label", { className: `chooser ${name.toLowerCase()}` }, h("b", {}, name), select);
}

function draw({ cells, sides, conductor }, stage) {
  stage.querySelectorAll("video").forEach((video) => conductor.remove(video));
  stage.replaceChildren(
    ...sides.map((at, side) => {
      const { video, label } = cells[at];
      const element = shown(video, label, { controls: false });
      if (element instanceof HTMLVideoElement) conductor.add(element);
      return h("figure", { className: side ? "b" : "a" }, element, h("figcaption", {}, label));
    }),
  );
  const { width, height } = cells[sides[0]].video;
  stage.style.setProperty("--ratio", `${width} / ${height}`);
  stage.style.setProperty("--shape", width / height);
}

function setMode(stage, wipe) {
  stage.dataset.mode = mode;
  wipe.hidden = mode !== "wipe";
}

function follow(event, stage, wipe) {
  const { left, width } = stage.getBoundingClientRect();
  wipe.value = Math.min(Math.max(((event.clientX - left) / width) * 100, 0), 100);
  stage.style.setProperty("--wipe", `${wipe.value}%`);
}

function onKey(event, { cells, conductor }, choose) {
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) {
    const select = choose[event.shiftKey ? 0 : 1].querySelector("select");
    select.value = (Number(select.value) + by + cells.length) % cells.length;
    select.dispatchEvent(new Event("change"));
  } else if (event.key === " " && event.target.tagName !== "BUTTON") {
    conductor.playing = !conductor.playing;
  } else return;
  event.preventDefault();
}
