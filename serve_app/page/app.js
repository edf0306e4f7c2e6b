// The page: its views by the hash of the address, files that are dropped on it, and what the service says of itself.

import "./compare.js";
import { settingsIn } from "./dropped.js";
import { announce, h } from "./dom.js";
import "./gallery.js";
import "./make.js";
import { service } from "./service.js";
import { defaults, leftOut, valuesOf } from "./settings.js";
import { isLora, uploadAll } from "./uploads.js";

const main = document.getElementById("main");
const views = {};

async function start() {
  try {
    await service.load();
  } catch (error) {
    main.replaceChildren(h("p", { className: "notice", role: "alert" }, error.message), h("button", { type: "button", onclick: () => location.reload() }, "Try again"));
    return;
  }
  document.getElementById("service").textContent = service.models.map(({ title }) => title).join(", ") + (service.notice ? " · demo" : "");
  document.getElementById("service").title = service.notice ?? "";
  for (const name of ["make", "compare", "gallery"]) views[name] = h(`${name}-view`, { hidden: true });
  views.watch = h("section", { hidden: true, className: "watch-view", "aria-label": "Video" });
  views.lost = h("section", { hidden: true, className: "notice", role: "alert" });
  main.replaceChildren(...Object.values(views));
  main.addEventListener("compare", ({ detail }) => compareFrom(detail.body));
  main.addEventListener("reuse", ({ detail, target }) => views.make.contains(target) || reuse(detail.body));
  main.addEventListener("removed", ({ target }) => views.watch.contains(target) && (location.hash = "#/gallery"));
  addEventListener("hashchange", route);
  route();
}

function route() {
  const [, name = "make", ...rest] = location.hash.split("/");
  const show = { make: () => {}, compare, gallery: () => {}, watch }[name];
  if (!show) {
    views.lost.replaceChildren(h("p", {}, "There is nothing at this address. The link may have been cut off on its way."), h("a", { href: "#/make" }, "Make a video"));
    return turnTo("lost");
  }
  turnTo(name);
  show(rest.join("/"));
}

function turnTo(name) {
  const before = Object.keys(views).find((other) => !views[other].hidden);
  for (const [other, view] of Object.entries(views)) view.hidden = other !== name;
  views.compare.shown = name === "compare";
  views.gallery.shown = name === "gallery";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${name[0].toUpperCase()}${name.slice(1)} – LoRA videos`;
  if (before && before !== name) main.focus({ preventScroll: true });
}

function compare(text) {
  if (text) return views.compare.open(text);
  views.compare.begin(views.make.settings.values);
  if (views.compare.link) history.replaceState(null, "", `#/compare/${views.compare.link}`);
}

function watch(id) {
  const card = h("render-card", { request: id });
  views.watch.replaceChildren(card);
}

function compareFrom(body) {
  const values = valuesOf(body, defaults(service.model(body.model)));
  views.compare.link = null; // of the grid before
  location.hash = "#/compare";
  views.compare.begin(values, { anew: true, without: leftOut(body, service.serves(body.model)) });
}

function reuse(body) {
  location.hash = "#/make";
  views.make.restore(body);
}

// Files that are dropped anywhere on the page.

const veil = document.getElementById("drop");
const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  veil.hidden = false;
});
addEventListener("dragleave", (event) => event.relatedTarget || (veil.hidden = true));
addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  veil.hidden = true;
  take([...event.dataTransfer.files], event.target);
});

/** Take files: LoRAs are uploaded; an image on its field is the control image, a video on a grid its reference; any other gives its settings back. */
async function take(files, target) {
  if (!views.make) return; // the service has not answered yet
  const loras = files.filter(isLora);
  const [other] = files.filter((file) => !isLora(file));
  const place = views.make.querySelector(".uploads");
  if (loras.length) {
    location.hash = "#/make";
    await uploadAll(loras, place);
  }
  if (!other) return;
  if (target.closest?.("[data-when=image]")) return views.make.settings.useImage(other);
  if (target.closest?.("video-grid")) return views.compare.grid.refer(other);
  try {
    reuse(await settingsIn(other));
    announce(`The settings of ${other.name} are filled in`);
  } catch (error) {
    location.hash = "#/make";
    views.make.problem.replaceChildren(h("p", {}, error.message));
  }
}

start();
