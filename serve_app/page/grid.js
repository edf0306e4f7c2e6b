// The grid: a table of cells that fill as they finish, all playing in step.

import { FINAL, get, post, submit } from "./api.js";
import { cellsOf, kindOf } from "./axes.js";
import { Cell } from "./cell.js";
import { Conductor } from "./conductor.js";
import { announce, breakable, copy, count, h } from "./dom.js";
import { follow } from "./follow.js";
import { written } from "./link.js";
import { referenceIn } from "./reference.js";
import { service } from "./service.js";
import { bodyOf } from "./settings.js";
import { comparePair } from "./wipe.js";

const LOST = new Set(["gone", "failed", "canceled"]); // cells that the button renders again
const AT_ONCE = 3; // submissions under way
const WIDTHS = { least: 80, first: 340, most: 640 }; // pixels of a column
const HEADING = 150; // pixels of the headings of rows
const GAP = 12; // pixels between columns
const NO_LINK = "This grid is too long for a link; with shorter or fewer prompts it has one. It is gone once this tab is closed or loaded again; its videos stay in the Gallery.";

/** <video-grid>: `start(grid)` shows {base, columns, rows, ids} and renders what has no id; fires "link" with its text, or null. */
class VideoGrid extends HTMLElement {
  #last = null; // the cell that was opened last
  #reference = null; // {label, clip} of a training preview
  #following = new Map(); // by the id of the request: what stops it

  disconnectedCallback() {
    this.end();
  }

  /** Stop playing and following; what is being rendered goes on. */
  end() {
    this.#following.forEach((stop) => stop());
    this.#following.clear();
    this.conductor?.stop();
  }

  set playing(playing) {
    if (this.conductor) this.conductor.playing = playing;
  }

  get cells() {
    return this.grid?.cells ?? [];
  }

  /** Show a grid. With `render`, cells without an id are submitted. */
  async start({ base, columns, rows, ids = [] }, { render }) {
    const before = this.cells;
    this.end();
    this.model = service.model(base.model);
    const cells = cellsOf({ base, columns, rows }, this.model).map((cell) => new Cell(cell, (opened) => this.#open(opened)));
    cells.forEach((cell, at) => (cell.id = ids[at] ?? this.#same(before, cell)));
    this.grid = { base, columns, rows, cells };
    this.#draw();
    this.#link();
    await Promise.all([this.#resume(), render && this.#submitAll()]);
  }

  // A cell that was rendered already, with the very same settings, is kept when the axes change.
  #same(before, { values }) {
    const wanted = this.#key(values);
    return before.find((cell) => cell.id && !LOST.has(cell.state) && this.#key(cell.values) === wanted)?.id ?? null;
  }

  #key(values) {
    return JSON.stringify(bodyOf({ ...values, model: this.model.id }, this.model));
  }

  #draw() {
    const { base, columns, rows, cells } = this.grid;
    this.conductor = new Conductor(base.fps);
    const across = columns.values.map((value) => h("th", { scope: "col" }, kindOf(columns.kind).label(value, this.model)));
    const body = rows.values.map((value, y) =>
      h(
        "tr",
        {},
        rows.kind !== "none" && h("th", { scope: "row" }, h("span", {}, ...breakable(kindOf(rows.kind).label(value, this.model)))),
        ...cells.filter(({ row }) => row === y).map(({ holder }) => h("td", {}, holder)),
      ),
    );
    const head = columns.kind !== "none" && h("thead", {}, h("tr", {}, rows.kind !== "none" && h("td"), ...across));
    const table = h("table", { className: "grid" }, head, h("tbody", {}, ...body));
    table.style.setProperty("--columns", columns.values.length);
    table.addEventListener("keydown", (event) => this.#move(event));
    const scroller = h("div", { className: "scroller", tabIndex: 0, role: "region", "aria-label": "Grid of videos" }, table);
    this.beside = h("div", { className: "beside" }, scroller);
    this.replaceChildren(this.#tools(), this.beside);
    this.#showReference();
  }

  /** Put a training preview beside the grid. It stays in this tab, and out of the link. */
  async refer(file) {
    this.problem.textContent = "";
    try {
      this.#reference = await referenceIn(file);
      this.#showReference();
      announce("The training preview is beside the grid");
    } catch (error) {
      this.problem.textContent = error.message;
    }
  }

  #showReference() {
    const before = this.beside.querySelector(".reference");
    if (before) this.conductor.remove(before.querySelector("video, canvas"));
    before?.remove();
    this.#fit();
    if (!this.#reference) return;
    const { clip, label } = this.#reference;
    const element = clip.element();
    element.style.aspectRatio = `${clip.width} / ${clip.height}`;
    const remove = h("button", { type: "button", className: "quiet", onclick: () => ((this.#reference = null), this.#showReference()) }, "Remove");
    this.beside.prepend(h("figure", { className: "reference" }, h("figcaption", {}, label, remove), element));
    this.conductor.add(element);
  }

  #tools() {
    const resize = () => this.style.setProperty("--cell", `${this.size.value}px`);
    this.size = h("input", { type: "range", min: WIDTHS.least, max: WIDTHS.most, "aria-label": "Size of the videos", oninput: resize });
    this.progress = h("p", { className: "hint", role: "status" });
    this.cancelAll = h("button", { type: "button", hidden: true, onclick: () => this.#cancel() }, "Cancel the rest");
    const copyLink = async () => (await copy(location.href), (this.copyLink.textContent = "Copied"), announce("Copied"));
    this.copyLink = h("button", { type: "button", onclick: copyLink }, "Copy link");
    this.noLink = h("p", { className: "field-problem", role: "alert" });
    const file = h("input", { type: "file", accept: "video/*,image/webp", hidden: true, onchange: () => file.files[0] && this.refer(file.files[0]) });
    const refer = h("button", { type: "button", onclick: () => file.click() }, "Add your training preview");
    this.problem = h("p", { className: "field-problem", role: "alert" });
    return h("div", { className: "tools" }, this.conductor.bar, h("label", { className: "size" }, "Size", this.size), this.progress, this.cancelAll, refer, file, this.copyLink, this.noLink, this.problem);
  }

  /** Give the videos a width with which all columns fit, where they can, and the training preview beside them. */
  #fit() {
    const room = (this.clientWidth || document.documentElement.clientWidth - 60) - HEADING;
    const columns = this.grid.columns.values.length + (this.#reference ? 1 : 0);
    this.size.value = Math.min(Math.max(room / columns - GAP, WIDTHS.least), WIDTHS.first);
    this.size.dispatchEvent(new Event("input"));
  }

  async #link() {
    const { base, columns, rows, cells } = this.grid;
    const text = await written({ base, columns, rows, ids: cells.map(({ id }) => id) });
    this.copyLink.hidden = text === null;
    this.noLink.textContent = text === null ? NO_LINK : "";
    this.dispatchEvent(new CustomEvent("link", { bubbles: true, detail: text }));
  }

  async #resume() {
    await Promise.all(
      this.cells.filter(({ id }) => id).map(async (cell) => {
        try {
          const status = await get(`v1/requests/${cell.id}/status`);
          await this.#update(cell, status);
          if (!FINAL.has(status.status)) this.#follow(cell.id);
        } catch (error) {
          this.#lost(cell, error);
        }
      }),
    );
    this.#count();
  }

  /** Submit the cells that have no request, or whose request is no longer there. */
  async #submitAll() {
    const waiting = this.cells.filter(({ id, state }) => !id || state === "gone");
    const grid = this.grid;
    const work = async () => {
      for (let cell = waiting.shift(); cell && this.grid === grid; cell = waiting.shift()) await this.#submit(cell);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    const failed = this.cells.find(({ refusal }) => refusal);
    if (failed) throw Object.assign(failed.refusal, { body: bodyOf(failed.values, this.model) });
  }

  async #submit(cell) {
    cell.refusal = null;
    try {
      const { request_id: id } = await submit({ ...bodyOf(cell.values, this.model), preview: true });
      cell.id = id;
      cell.show("in_queue");
      this.#follow(id);
      this.#count();
      await this.#link();
    } catch (error) {
      cell.refusal = error;
      cell.show("failed", error.message);
    }
  }

  // Two cells with the same settings are one request.
  #follow(id) {
    if (this.#following.has(id)) return;
    const listener = {
      onUpdate: (status) => this.#with(id, (cell) => this.#update(cell, status)),
      onEvent: (event, data) => this.#with(id, (cell) => cell.hear(event, data)),
      onLost: (error) => this.#with(id, (cell) => this.#lost(cell, error)),
    };
    this.#following.set(id, follow(id, listener));
  }

  #with(id, work) {
    this.cells.filter((cell) => cell.id === id).forEach(work);
  }

  async #update(cell, status) {
    cell.update(status);
    if (status.status === "succeeded" && !cell.finished) {
      const { outputs } = await get(`v1/requests/${cell.id}/result`);
      const video = cell.play(outputs.videos[0]);
      if (video) this.conductor.add(video);
    }
    this.#count();
  }

  #lost(cell, error) {
    cell.show(error.status === 404 ? "gone" : "failed", error.status === 404 ? undefined : error.message);
    this.#count();
  }

  #count() {
    const { cells } = this;
    const open = cells.filter(({ id, state }) => id && ["in_queue", "in_progress"].includes(state));
    const done = cells.filter(({ finished }) => finished).length;
    this.progress.textContent = done === cells.length ? count(done, "video") : `${done} of ${count(cells.length, "video")}`;
    this.cancelAll.hidden = !open.length;
    this.dispatchEvent(new Event("progress", { bubbles: true }));
  }

  async #cancel() {
    const open = this.cells.filter(({ state }) => ["in_queue", "in_progress"].includes(state));
    await Promise.all(open.reverse().map(async (cell) => this.#update(cell, await post(`v1/requests/${cell.id}/cancel`))));
  }

  #open(cell) {
    if (!cell.finished) return;
    const cells = [...(this.#reference ? [this.#reference] : []), ...this.cells.filter(({ finished }) => finished)];
    const other = this.#last && this.#last !== cell && cells.includes(this.#last) ? this.#last : this.#beside(cell, cells);
    this.#last = cell;
    const wasPlaying = this.conductor.playing;
    this.playing = false;
    comparePair(cells, cells.indexOf(other), cells.indexOf(cell), this.grid.base.fps).addEventListener("close", () => {
      this.playing = wasPlaying;
      cell.element.focus();
    });
  }

  // Against the training preview; without one, the first of its row, which mostly is strength 0 or the earliest checkpoint.
  #beside(cell, cells) {
    if (this.#reference) return this.#reference;
    return cells.find((other) => other !== cell && other.row === cell.row) ?? cells.find((other) => other !== cell) ?? cell;
  }

  #move(event) {
    const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    const from = this.cells.find(({ element }) => element === event.target);
    if (x === undefined || !from) return;
    this.cells.find(({ row, column }) => row === from.row + y && column === from.column + x)?.element.focus();
    event.preventDefault();
  }
}

customElements.define("video-grid", VideoGrid);
