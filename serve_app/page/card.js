// A card of the gallery: a picture of one request, which plays under the pointer; how far it is, while it is being made.

import { FINAL, call, get, here } from "./api.js";
import { duration, h } from "./dom.js";
import { ended } from "./follow.js";
import { titleOfPaths } from "./pairs.js";
import { service } from "./service.js";

const STATES = { in_queue: "waiting", in_progress: "being made", failed: "failed", canceled: "canceled" };

/** Return a list item that shows a request of the list. It fires "changed" with the request once that has ended. */
export function galleryCard(request) {
  const card = h("gallery-card");
  card.details = request;
  return h("li", { className: "card", "data-request": request.request_id }, card);
}

/** Return what the LoRAs of a request are called. */
export function titleOfRequest({ model, loras }) {
  const side = (name) => loras.find(({ transformer }) => transformer === name || transformer === null)?.path ?? "";
  return titleOfPaths(side("high"), side("low"), service.choices(service.model(model)));
}

class GalleryCard extends HTMLElement {
  #stop = null;

  connectedCallback() {
    this.#stop = new AbortController();
    if (!this.link) this.#build();
    if (!FINAL.has(this.details.status)) this.#follow(this.#stop.signal).catch((error) => this.#stop.signal.aborted || this.#refuse(error));
  }

  disconnectedCallback() {
    this.#stop.abort();
  }

  #build() {
    const { request_id: id, status, prompts, loras, created_at: created, error } = this.details;
    const [prompt] = prompts;
    this.placeholder = h("span", { className: "placeholder" }, STATES[status] ?? "");
    this.bar = h("progress", { max: 1, value: this.details.progress, hidden: FINAL.has(status), "aria-label": `Progress: ${prompt.prompt}` });
    const picture = prompt.thumbnail_url
      ? h("img", { src: here(prompt.thumbnail_url), alt: "", loading: "lazy", width: prompt.width, height: prompt.height })
      : this.placeholder;
    const opens = h("span", { className: "visually-hidden" }, `Open: ${prompt.prompt}`);
    this.link = h("a", { href: `#/watch/${id}`, className: "card-picture", title: error ?? "" }, picture, this.bar, opens);
    this.link.style.aspectRatio = `${prompt.width} / ${prompt.height}`;
    if (prompt.url) playOver(this.link, prompt.url);
    const about = [`${titleOfRequest(this.details)}${strengthOf(loras)}`, ...(prompts.length > 1 ? [`${prompts.length} videos`] : []), when(created)];
    const remove = FINAL.has(status)
      ? h("button", { type: "button", className: "quiet", "aria-label": `Delete: ${prompt.prompt}`, onclick: () => this.#remove() }, "Delete")
      : h("button", { type: "button", className: "quiet", "aria-label": `Cancel: ${prompt.prompt}`, onclick: () => this.#cancel() }, "Cancel");
    this.append(this.link, h("p", { className: "card-prompt" }, prompt.prompt), h("p", { className: "card-about" }, about.join(" · "), remove));
  }

  async #follow(signal) {
    await ended(this.details.request_id, signal, {
      onUpdate: (status) => this.#show(status),
      onEvent: (event, data) => this.#hear(event, data),
    });
    const request = await get(`v1/requests/${this.details.request_id}`, { signal });
    this.dispatchEvent(new CustomEvent("changed", { bubbles: true, detail: request }));
  }

  #show({ status, progress, queue_position: position, eta_seconds: eta }) {
    this.bar.value = progress;
    const waits = position ? `waiting, ${position} before it` : "next in the queue";
    const left = eta ? `, ${duration(eta)} left` : "";
    this.placeholder.textContent = status === "in_queue" ? waits : `${STATES[status] ?? ""}${left}`;
  }

  #hear(event, data) {
    if (event === "step") this.#show({ status: "in_progress", ...data });
    if (event === "preview") this.#draw(data.image);
  }

  #draw(image) {
    const picture = this.link.querySelector(".preview") ?? h("img", { className: "preview", alt: "" });
    picture.src = image;
    this.link.prepend(picture);
  }

  async #cancel() {
    try {
      await call("POST", `v1/requests/${this.details.request_id}/cancel`);
    } catch (error) {
      this.#refuse(error);
    }
  }

  async #remove() {
    if (!confirm("Delete this video and its file?")) return;
    const item = this.parentElement;
    try {
      await call("DELETE", `v1/requests/${this.details.request_id}`);
      const next = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      next?.querySelector("a")?.focus();
    } catch (error) {
      this.#refuse(error);
    }
  }

  #refuse(error) {
    this.querySelector(".field-problem")?.remove();
    this.append(h("p", { className: "field-problem", role: "alert" }, error.message));
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
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  return new Date(time).toLocaleString(undefined, seconds < 86400 ? { timeStyle: "short" } : { dateStyle: "medium" });
}

customElements.define("gallery-card", GalleryCard);
