// The view "Gallery": what was made and what is being made, newest first, as one list without end.

import { get } from "./api.js";
import { galleryCard, titleOfRequest } from "./card.js";
import { h, settled, template } from "./dom.js";

const PAGE = 24;
const LOOK_MS = 4000; // between two looks for what is new

/** <gallery-view>: while it is `shown`, it has what is new and follows what is being made. */
class GalleryView extends HTMLElement {
  #next = null;
  #asked = 0; // which reading is the newest
  #timer = null;

  connectedCallback() {
    if (this.list) return;
    this.append(template("gallery"));
    this.list = this.querySelector(".cards");
    this.filters = this.querySelector("form");
    this.more = this.querySelector(".more button");
    this.pairs = new Map(); // key: title
    this.filters.addEventListener("submit", (event) => event.preventDefault());
    this.filters.addEventListener("input", settled(() => this.#begin(), 250));
    this.more.addEventListener("click", () => this.#readMore());
    this.list.addEventListener("changed", ({ target, detail }) => this.#changed(target.parentElement, detail));
    new IntersectionObserver(([entry]) => entry.isIntersecting && !this.more.hidden && this.#readMore(), { rootMargin: "600px" }).observe(this.querySelector(".more"));
  }

  set shown(shown) {
    clearInterval(this.#timer);
    this.#empty();
    if (!shown) return;
    this.#begin();
    this.#timer = setInterval(() => document.hidden || this.#readNew(), LOOK_MS);
  }

  // A card that is taken out of the document no longer follows its request.
  #empty() {
    this.#asked++;
    this.list.replaceChildren();
  }

  async #begin() {
    this.#next = null;
    this.#empty();
    await this.#readMore();
  }

  async #readMore() {
    const page = await this.#page(this.#next);
    if (!page) return;
    this.#next = page.next;
    this.list.append(...page.requests.map(galleryCard));
    this.more.hidden = page.next === null;
    this.#saySoIfEmpty();
  }

  async #readNew() {
    if (!this.list.children.length) return; // the first page is on its way
    const page = await this.#page(null, { quiet: true });
    if (!page) return;
    const known = new Set([...this.list.children].map(({ dataset }) => dataset.request));
    const fresh = page.requests.filter(({ request_id: id }) => !known.has(id));
    if (!fresh.length) return;
    this.list.querySelector(".empty")?.remove();
    this.list.prepend(...fresh.map(galleryCard));
  }

  /** Return a page of the list; null where another reading has begun, or it could not be read. */
  async #page(after, { quiet = false } = {}) {
    const asked = quiet ? this.#asked : ++this.#asked;
    const wanted = { limit: PAGE, ...this.#wanted, after: after ?? "" };
    const query = new URLSearchParams(Object.entries(wanted).filter(([, value]) => value !== ""));
    if (!quiet) this.more.hidden = true;
    try {
      const page = await get(`v1/requests?${query}`);
      if (asked !== this.#asked) return null;
      this.#offerPairs(page.requests);
      return page;
    } catch (error) {
      if (!quiet) this.list.append(h("li", { className: "notice", role: "alert" }, error.message));
      return null;
    }
  }

  get #wanted() {
    return Object.fromEntries(new FormData(this.filters));
  }

  #saySoIfEmpty() {
    if (this.list.children.length) return;
    const filtered = Object.values(this.#wanted).some(Boolean);
    this.list.append(h("li", { className: "empty" }, filtered ? "Nothing fits these filters." : "Nothing was made yet."));
  }

  /** Show a request anew that has ended, if it still fits the filters. */
  #changed(card, request) {
    const { status } = this.#wanted;
    if (status && status !== request.status) card.remove();
    else card.replaceWith(galleryCard(request));
    this.#saySoIfEmpty();
  }

  #offerPairs(requests) {
    const select = this.filters.elements.pair;
    for (const request of requests) {
      if (this.pairs.has(request.pair_key)) continue;
      this.pairs.set(request.pair_key, titleOfRequest(request));
      select.append(h("option", { value: request.pair_key }, titleOfRequest(request)));
    }
  }
}

customElements.define("gallery-view", GalleryView);
