// Watching one request: place in the queue, ETA, steps, previews, and then its videos with all that can be done to them.

import { FINAL, call, get, here, post } from "./api.js";
import { showText } from "./copying.js";
import { announce, count, duration, h, stem } from "./dom.js";
import { ended } from "./follow.js";
import { fileName, shown } from "./media.js";
import { titleOfPaths } from "./pairs.js";
import { service } from "./service.js";
import { defaults, valuesOf } from "./settings.js";

const SAID_EACH = 0.25; // of the progress, to screen readers

/** <render-card request="...">: shows one request, live; fires "reuse" and "compare" with its body, and "removed". */
class RenderCard extends HTMLElement {
  #stop = null;
  #said = 0;

  connectedCallback() {
    this.#stop = new AbortController();
    this.#build();
    this.#follow().catch((error) => this.#stop.signal.aborted || this.#fail(error));
  }

  disconnectedCallback() {
    this.#stop.abort();
  }

  get request() {
    return this.getAttribute("request");
  }

  #build() {
    this.picture = h("div", { className: "picture" });
    this.line = h("p", { className: "state", role: "status" }, "…");
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Progress" });
    this.cancel = h("button", { type: "button", onclick: () => this.#cancel() }, "Cancel");
    this.heading = h("p", { className: "title" });
    this.actions = h("div", { className: "actions" });
    this.facts = h("div", { className: "facts" });
    this.replaceChildren(
      this.picture,
      h("div", { className: "live" }, this.line, this.bar, this.cancel),
      this.heading,
      this.actions,
      this.facts,
    );
  }

  async #follow() {
    const { signal } = this.#stop;
    this.details = await get(`v1/requests/${this.request}`, { signal });
    this.#describe();
    this.#status(this.details);
    if (!FINAL.has(this.details.status)) {
      await ended(this.request, signal, { onUpdate: (status) => this.#status(status), onEvent: (event, data) => this.#event(event, data) });
    }
    await this.#finish(signal);
  }

  #event(event, data) {
    if (event === "step") this.#step(data);
    if (event === "preview") this.#preview(data);
  }

  #describe() {
    const { prompts, loras, request } = this.details;
    const [{ prompt, width, height, num_frames: frames, seed }] = prompts;
    this.body = whole(request);
    this.values = valuesOf(request, defaults(service.model(request.model)));
    const pair = titleOfPaths(this.values.high, this.values.low, service.choices(service.model(request.model)));
    const strengths = [...new Set(loras.map(({ network_multiplier: strength }) => strength))].join(" / ");
    this.label = prompt;
    this.heading.replaceChildren(
      h("q", {}, prompt),
      h("small", {}, `${pair} at ${strengths} · ${width} × ${height}, ${count(frames, "frame")} · ${request.prompts[0].sample_steps} steps · seed ${seed}`),
    );
    this.picture.style.aspectRatio = `${width} / ${height}`;
  }

  #status(status) {
    const { status: state, progress, queue_position: position, eta_seconds: eta, error } = status;
    this.dataset.state = state;
    this.bar.value = progress;
    this.bar.hidden = this.cancel.hidden = FINAL.has(state);
    this.line.textContent = {
      in_queue: position ? `${count(position, "render")} before it${waits(eta)}` : `Next in the queue${waits(eta)}`,
      in_progress: `Rendering${waits(eta)}`,
      succeeded: "",
      canceled: "Canceled",
      failed: error,
    }[state];
  }

  #step({ step, steps, progress, eta_seconds: eta }) {
    this.dataset.state = "in_progress";
    this.bar.value = progress;
    this.line.textContent = `Step ${step} of ${steps}${waits(eta)}`;
    if (progress - this.#said >= SAID_EACH) {
      this.#said = progress;
      announce(`${Math.round(progress * 100)} percent`);
    }
  }

  #preview({ image }) {
    const picture = this.picture.querySelector("img.preview") ?? h("img", { className: "preview", alt: "Preview of the video so far" });
    picture.src = image;
    this.picture.replaceChildren(picture);
  }

  async #finish(signal) {
    const result = await get(`v1/requests/${this.request}/result`, { signal });
    this.#status({ ...this.details, ...result, progress: 1 });
    const videos = result.outputs?.videos ?? [];
    if (videos.length) {
      this.picture.replaceChildren(...videos.map((video) => shown(video, this.label)));
      announce("The video is ready");
    } else {
      this.picture.replaceChildren();
    }
    this.#offer(videos);
    this.facts.replaceChildren(...(result.metadata?.prompts ?? []).slice(0, 1).flatMap(factsOf));
    this.dispatchEvent(new CustomEvent("ended", { bubbles: true, detail: { succeeded: videos.length > 0 } }));
  }

  #offer(videos) {
    const tell = (name) => this.dispatchEvent(new CustomEvent(name, { bubbles: true, detail: { body: this.body } }));
    this.actions.replaceChildren(
      ...videos.map((video) => h("a", { className: "button", href: here(video.url), download: fileName(video, this.request) }, "Download")),
      h("button", { type: "button", onclick: () => tell("reuse") }, "Use these settings"),
      h("button", { type: "button", onclick: () => tell("compare") }, "Compare from here"),
      h("button", { type: "button", onclick: () => showText(this.body) }, "Copy as…"),
      h("a", { className: "button quiet", href: `#/watch/${this.request}` }, "Link"),
      h("button", { type: "button", className: "quiet", onclick: () => this.#remove() }, "Delete"),
    );
  }

  async #cancel() {
    this.cancel.disabled = true;
    try {
      this.#status(await post(`v1/requests/${this.request}/cancel`));
    } catch (error) {
      this.#fail(error);
    }
  }

  async #remove() {
    if (!confirm("Delete this video and its file?")) return;
    try {
      await call("DELETE", `v1/requests/${this.request}`);
      this.dispatchEvent(new CustomEvent("removed", { bubbles: true }));
      this.remove();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    this.dataset.state = "failed";
    this.bar.hidden = this.cancel.hidden = true;
    this.line.textContent =
      error.code === "REQUEST_NOT_FOUND" ? "No such request: it was deleted, or the link is incomplete." : error.message;
  }
}

// A body without what the service says of things that are not there.
function whole(request) {
  return JSON.parse(JSON.stringify(request, (_, value) => value ?? undefined));
}

function waits(seconds) {
  return seconds ? `, ${duration(seconds)} left` : "";
}

function factsOf({ draft_loras: draft, recipe, sampler, shift, sample_steps: steps, boundary_step: boundary, guidance_scale: guidance, runtime, timings, warnings, acceleration }) {
  const seconds = timings.fetch + timings.generate + timings.encode + timings.store;
  const rows = {
    Recipe: `${recipe}: ${sampler}, shift ${shift}${draft?.length ? `, with ${draft.map(({ path }) => stem(path)).join(" and ")}` : ""}`,
    Steps: `${steps}, the first ${boundary} by the high noise expert`,
    Guidance: guidance,
    Speed: `${acceleration.speed}, ${acceleration.attention} attention`,
    Device: `${runtime.device}, ${runtime.dtype}`,
    Took: `${Math.round(seconds * 10) / 10} s, of which ${Math.round(timings.denoise * 10) / 10} s steps`,
  };
  const list = Object.entries(rows).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value))));
  return [
    ...warnings.map((text) => h("p", { className: "warning" }, text)),
    h("details", {}, h("summary", {}, "How it was made"), h("dl", {}, ...list)),
  ];
}

customElements.define("render-card", RenderCard);
