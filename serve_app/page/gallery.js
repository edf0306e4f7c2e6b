// The view "Gallery": what was made, newest first, as one list without end.

import { call, get, here } from "./api.js";
import { h, settled, template } from "./dom.js";
import { titleOfPaths } from "./pairs.js";
import { service } from "./service.js";

const PAGE = 24;
const STATES = { in_queue: "waiting", in_progress: "being made", failed: "failed", canceled: "canceled" };

/** <gallery-view>: `show()` reads the list anew. */
class GalleryView extends HTMLElement {
  #next = null;
  #asked = 0; // which reading is the newest

  connectedCallback() {
    if (this.list) return;
    this.append(template("gallery"));
    this.list = this.querySelector(".cards");
    this.filters = this.querySelector("form");
    this.more = this.querySelector(".more button");
    this.pairs = new Map(); // key: title
    this.filters.addEventListener("submit", (event) => event.preventDefault());
    this.filters.addEventListener("input", settled(() => this.show(), 250));
    this.more.addEventListener("click", () => this.#read());
    new IntersectionObserver(([entry]) => entry.isIntersecting && !this.more.hidden && this.#read(), { rootMargin: "600px" }).observe(this.querySelector(".more"));
  }

  async show() {
    this.#next = null;
    this.list.replaceChildren();
    await this.#read();
  }

  async #read() {
    const asked = ++this.#asked;
    const { text, pair, status } = Object.fromEntries(new FormData(this.filters));
    const query = new URLSearchParams(Object.entries({ limit: PAGE, text, pair, status, after: this.#next ?? "" }).filter(([, value]) => value !== ""));
    this.more.hidden = true;
    try {
      const { requests, next } = await get(`v1/requests?${query}`);
      if (asked !== this.#asked) return; // a newer reading is under way
      this.#next = next;
      this.list.append(...requests.map((request) => this.#card(request)));
      this.more.hidden = next === null;
      this.#offerPairs(requests);
      if (!this.list.children.length) this.list.append(h("li", { className: "empty" }, text || pair || status ? "Nothing fits these filters." : "Nothing was made yet."));
    } catch (error) {
      this.list.append(h("li", { className: "notice", role: "alert" }, error.message));
    }
  }

  #card(request) {
    const { request_id: id, status, prompts, loras, created_at: created, error } = request;
    const [prompt] = prompts;
    const card = h("li", { className: "card", "data-request": id });
    const picture = prompt.thumbnail_url
      ? h("img", { src: here(prompt.thumbnail_url), alt: "", loading: "lazy", width: prompt.width, height: prompt.height })
      : h("span", { className: "placeholder" }, STATES[status] ?? "");
    const link = h("a", { href: `#/watch/${id}`, className: "card-picture", title: error ?? "" }, picture, h("span", { className: "visually-hidden" }, `Open: ${prompt.prompt}`));
    link.style.aspectRatio = `${prompt.width} / ${prompt.height}`;
    if (prompt.url) playOver(link, prompt.url);
    const about = `${this.#title(request)}${strengthOf(loras)} · ${when(created)}`;
    const remove = h("button", { type: "button", className: "quiet", "aria-label": `Delete: ${prompt.prompt}`, onclick: () => this.#remove(card, id, status) }, "Delete");
    card.append(link, h("p", { className: "card-prompt" }, prompt.prompt), h("p", { className: "card-about" }, about, remove));
    return card;
  }

  #title({ model, loras }) {
    const side = (name) => loras.find(({ transformer }) => transformer === name || transformer === null)?.path ?? "";
    return titleOfPaths(side("high"), side("low"), service.choices(service.model(model)));
  }

  #offerPairs(requests) {
    const select = this.filters.elements.pair;
    for (const request of requests) {
      if (this.pairs.has(request.pair_key)) continue;
      this.pairs.set(request.pair_key, this.#title(request));
      select.append(h("option", { value: request.pair_key }, this.#title(request)));
    }
  }

  async #remove(card, id, status) {
    if (!confirm("Delete this video and its file?")) return;
    try {
      if (STATES[status] && status.startsWith("in_")) await call("POST", `v1/requests/${id}/cancel`);
      await call("DELETE", `v1/requests/${id}`);
      const next = card.nextElementSibling ?? card.previousElementSibling;
      card.remove();
      next?.querySelector("a")?.focus();
    } catch (error) {
      card.append(h("p", { className: "field-problem", role: "alert" }, error.message));
    }
  }
}

// A card plays while the pointer or the focus is on it.
function playOver(link, url) {
  let video = null;
  const start = () => {
    if (video || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    video = h("video", { src: here(url), muted: true, loop: true, autoplay: true, playsInline: true, "aria-hidden": "true" });
    link.append(video);
  };
  const stop = () => (video?.remove(), (video = null));
  for (const name of ["pointerenter", "focus"]) link.addEventListener(name, start);
  for (const name of ["pointerleave", "blur"]) link.addEventListener(name, stop);
}

function strengthOf(loras) {
  const strengths = [...new Set(loras.map(({ network_multiplier: strength }) => strength))];
  return strengths.length === 1 && strengths[0] === 1 ? "" : ` × ${strengths.join(" / ")}`;
}

function when(time) {
  const seconds = (Date.now() - new Date(time)) / 1000;
  if (seconds < 3600) return `${Math.max(0, Math.round(seconds / 60))} min ago`;
  return new Date(time).toLocaleString(undefined, seconds < 86400 ? { timeStyle: "short" } : { dateStyle: "medium" });
}

customElements.define("gallery-view", GalleryView);
