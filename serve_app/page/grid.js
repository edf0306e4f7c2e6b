// The grid: a table of cells that fill as they finish, all playing in step.

import { FINAL, get, post, submit } from "./api.js";
import { cellsOf, kindOf } from "./axes.js";
import { Cell } from "./cell.js";
import { Conductor } from "./conductor.js";
import { announce, copy, count, h } from "./dom.js";
import { Follower } from "./follow.js";
import { written } from "./link.js";
import { service } from "./service.js";
import { bodyOf } from "./settings.js";
import { comparePair } from "./wipe.js";

const LOST = new Set(["gone", "failed", "canceled"]); // cells that the button renders again
const AT_ONCE = 3; // submissions under way
const WIDTHS = { least: 80, first: 340, most: 640 }; // pixels of a column
const HEADING = 150; // pixels of the headings of rows

/** <video-grid>: `start(grid)` shows {base, columns, rows, ids} and renders what has no id; fires "link" with its text. */
class VideoGrid extends HTMLElement {
  #last = null; // the cell that was opened last

  disconnectedCallback() {
    this.end();
  }

  /** Stop playing and following; what is being rendered goes on. */
  end() {
    this.follower?.stop();
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
    this.follower = new Follower({
      onUpdate: (id, status) => this.#with(id, (cell) => this.#update(cell, status)),
      onEvent: (id, event, data) => this.#with(id, (cell) => cell.hear(event, data)),
      onLost: (id, error) => this.#with(id, (cell) => this.#lost(cell, error)),
    });
    const across = columns.values.map((value) => h("th", { scope: "col" }, kindOf(columns.kind).label(value, this.model)));
    const body = rows.values.map((value, y) =>
      h(
        "tr",
        {},
        rows.kind !== "none" && h("th", { scope: "row" }, h("span", {}, kindOf(rows.kind).label(value, this.model))),
        ...cells.filter(({ row }) => row === y).map(({ holder }) => h("td", {}, holder)),
      ),
    );
    const head = columns.kind !== "none" && h("thead", {}, h("tr", {}, rows.kind !== "none" && h("td"), ...across));
    const table = h("table", { className: "grid" }, head, h("tbody", {}, ...body));
    table.style.setProperty("--columns", columns.values.length);
    table.addEventListener("keydown", (event) => this.#move(event));
    const scroller = h("div", { className: "scroller", tabIndex: 0, role: "region", "aria-label": "Grid of videos" }, table);
    this.replaceChildren(this.#tools(table), scroller);
  }

  #tools(table) {
    const size = h("input", { type: "range", min: WIDTHS.least, max: WIDTHS.most, value: String(this.#firstWidth()), "aria-label": "Size of the videos" });
    const resize = () => table.style.setProperty("--cell", `${size.value}px`);
    size.addEventListener("input", resize);
    resize();
    this.progress = h("p", { className: "hint", role: "status" });
    this.cancelAll = h("button", { type: "button", hidden: true, onclick: () => this.#cancel() }, "Cancel the rest");
    const link = h("button", { type: "button", onclick: async () => (await copy(location.href), (link.textContent = "Copied"), announce("Copied")) }, "Copy link");
    return h("div", { className: "tools" }, this.conductor.bar, h("label", { className: "size" }, "Size", size), this.progress, this.cancelAll, link);
  }

  /** Return a width with which all columns fit, where they can. */
  #firstWidth() {
    const room = this.clientWidth || document.documentElement.clientWidth - 60;
    return Math.min(Math.max((room - HEADING) / this.grid.columns.values.length - 6, WIDTHS.least), WIDTHS.first);
  }

  async #link() {
    const { base, columns, rows, cells } = this.grid;
    const text = await written({ base, columns, rows, ids: cells.map(({ id }) => id) });
    this.dispatchEvent(new CustomEvent("link", { bubbles: true, detail: text }));
  }

  async #resume() {
    await Promise.all(
      this.cells.filter(({ id }) => id).map(async (cell) => {
        try {
          const status = await get(`v1/requests/${cell.id}/status`);
          await this.#update(cell, status);
          if (!FINAL.has(status.status)) this.follower.watch(cell.id);
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
      this.follower.watch(id);
      this.#count();
      await this.#link();
    } catch (error) {
      cell.refusal = error;
      cell.show("failed", error.message);
    }
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
    const cells = this.cells.filter(({ finished }) => finished);
    const other = this.#last && this.#last !== cell && cells.includes(this.#last) ? this.#last : this.#beside(cell, cells);
    this.#last = cell;
    const wasPlaying = this.conductor.playing;
    this.playing = false;
    comparePair(cells, cells.indexOf(other), cells.indexOf(cell)).addEventListener("close", () => {
      this.playing = wasPlaying;
      cell.element.focus();
    });
  }

  // Against the first of its row, which mostly is strength 0 or the earliest checkpoint.
  #beside(cell, cells) {
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
