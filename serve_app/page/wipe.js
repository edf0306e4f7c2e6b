// Two videos of a grid, large: side by side, with a wipe over one another, or their difference.

import { Conductor } from "./conductor.js";
import { h } from "./dom.js";
import { plays } from "./media.js";

const MODES = { side: "Side by side", wipe: "Wipe", difference: "Difference" };
const KEYS = { "← →": "another B", "Shift ← →": "another A", Space: "play, pause", ", .": "a frame back, on", "S W D": "side by side, wipe, difference" };
const MODE_OF_KEY = { s: "side", w: "wipe", d: "difference" };
const FRAMES_OF_KEY = { ",": -1, ".": 1 };
const CELLS_OF_KEY = { ArrowLeft: -1, ArrowRight: 1 };
let mode = "wipe"; // as it was used last

/** Show `left` and `right` of `cells`, which are {label, clip}; arrow keys go on to others. */
export function comparePair(cells, left, right, fps) {
  const conductor = new Conductor(fps);
  const view = { cells, sides: [left, right], conductor };
  const stage = h("div", { className: "duel", tabIndex: 0, autofocus: true, role: "group", "aria-label": "The two videos" });
  const wipe = h("input", { type: "range", min: 0, max: 100, value: "50", step: "any", className: "wipe", "aria-label": "Wipe between the two" });
  const choose = ["A", "B"].map((name, side) => chooser(name, side, view, () => draw(view, stage)));
  const modes = h("div", { className: "segments", role: "radiogroup", "aria-label": "How to compare" });
  for (const [name, title] of Object.entries(MODES)) {
    const change = () => ((mode = name), setMode(stage, wipe));
    modes.append(h("label", {}, h("input", { type: "radio", name: "mode", value: name, checked: name === mode, onchange: change }), h("span", {}, title)));
  }
  const dialog = h(
    "dialog",
    { className: "duel-dialog", "aria-label": "Compare two", onclose: () => (conductor.stop(), dialog.remove()) },
    h("div", { className: "duel-head" }, choose[0], modes, choose[1], h("button", { type: "button", className: "quiet", onclick: () => dialog.close() }, "Close")),
    h("div", { className: "duel-stage" }, stage, wipe),
    conductor.bar,
    h("p", { className: "keys" }, ...Object.entries(KEYS).map(([keys, does]) => h("span", {}, h("kbd", {}, keys), ` ${does}`))),
  );
  wipe.addEventListener("input", () => stage.style.setProperty("--wipe", `${wipe.value}%`));
  stage.addEventListener("pointermove", (event) => mode === "wipe" && follow(event, stage, wipe));
  dialog.addEventListener("keydown", (event) => onKey(event, view, choose, modes));
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
  conductor.clear();
  const [one, other] = sides.map((at) => cells[at].clip);
  const alike = one.width === other.width && one.height === other.height;
  stage.replaceChildren(
    ...sides.map((at, side) => {
      const { clip, label } = cells[at];
      const element = clip.element();
      if (plays(element)) conductor.add(element);
      const size = alike ? "" : ` · ${clip.width} × ${clip.height}`;
      return h("figure", { className: side ? "b" : "a" }, element, h("figcaption", {}, label + size));
    }),
  );
  const { width, height } = other;
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

function onKey(event, { cells, conductor }, choose, modes) {
  if (["INPUT", "SELECT"].includes(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const { key } = event;
  if (key in CELLS_OF_KEY) {
    const select = choose[event.shiftKey ? 0 : 1].querySelector("select");
    select.value = (Number(select.value) + CELLS_OF_KEY[key] + cells.length) % cells.length;
    select.dispatchEvent(new Event("change"));
  } else if (key in FRAMES_OF_KEY) {
    conductor.step(FRAMES_OF_KEY[key]);
  } else if (key.toLowerCase() in MODE_OF_KEY) {
    modes.querySelector(`[value=${MODE_OF_KEY[key.toLowerCase()]}]`).click();
  } else if (key === " " && event.target.tagName !== "BUTTON") {
    conductor.playing = !conductor.playing;
  } else return;
  event.preventDefault();
}
