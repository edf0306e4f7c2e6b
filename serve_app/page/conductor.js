// Playing in step: one clock for many videos, which seeks or nudges each one that drifts from it.

import { h, press, pressed } from "./dom.js";

const SEEK_S = 0.12; // a drift beyond which a video is put to its place; below, its rate is nudged
const RATES = [0.25, 0.5, 1, 2];
const SAME_S = 1e-3;

/** Keeps the current times of its videos (or of films, see film.js) equal; `bar` has its controls. */
export class Conductor {
  #videos = new Set();
  #time = 0;
  #at = performance.now();
  #rate = 1;
  #running = false;

  constructor(fps) {
    this.fps = fps;
    this.bar = this.#controls();
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  get playing() {
    return this.#running;
  }

  set playing(playing) {
    this.#at = performance.now();
    this.#running = playing;
    press(this.button, playing);
    this.button.title = playing ? "Pause" : "Play";
    this.#videos.forEach((video) => video.pause?.());
    this.#tick();
  }

  /** Seconds of the longest video. */
  get duration() {
    return Math.max(0, ...[...this.#videos].map((video) => video.duration || 0));
  }

  get time() {
    return this.#time;
  }

  set time(seconds) {
    this.#time = Math.min(Math.max(seconds, 0), this.duration);
    this.#at = performance.now();
    this.#align();
  }

  add(video) {
    video.loop = false;
    this.#videos.add(video);
    video.addEventListener("loadeddata", () => this.#align());
    this.#align();
  }

  remove(video) {
    this.#videos.delete(video);
  }

  clear() {
    this.#videos.clear();
  }

  /** Pause, and move by whole frames. */
  step(frames) {
    this.playing = false;
    this.time = (Math.round(this.#time * this.fps) + frames) / this.fps;
  }

  stop() {
    this.playing = false;
    this.clear();
  }

  #tick() {
    if (!this.#running || this.frame) return;
    this.frame = requestAnimationFrame((now) => {
      this.frame = null;
      if (!this.#running) return;
      this.#time += ((now - this.#at) / 1000) * this.#rate;
      this.#at = now;
      if (this.#time >= this.duration) this.#time = 0;
      this.#align();
      this.#tick();
    });
  }

  #align() {
    this.slider.max = this.duration;
    this.slider.value = this.#time;
    for (const video of this.#videos) this.#place(video);
  }

  #place(video) {
    if (video.seekTo) return video.seekTo(Math.min(this.#time, video.duration - SAME_S));
    if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA || video.seeking) return;
    const wanted = Math.min(this.#time, video.duration - SAME_S);
    const drift = video.currentTime - wanted;
    if (!this.#running) {
      if (Math.abs(drift) > SAME_S) video.currentTime = wanted;
      return;
    }
    if (Math.abs(drift) > SEEK_S) video.currentTime = wanted;
    video.playbackRate = this.#rate * Math.min(Math.max(1 - drift * 2, 0.5), 1.5);
    // A video that has reached its end waits there for the longer ones.
    if (video.paused && wanted < video.duration - SEEK_S) video.play().catch(() => {});
  }

  #controls() {
    this.button = h("button", { type: "button", className: "icon play", "aria-pressed": "false", "aria-label": "Play", onclick: () => (this.playing = !pressed(this.button)) });
    this.slider = h("input", { type: "range", min: 0, max: 1, step: "any", value: "0", "aria-label": "Time", oninput: () => this.#scrub() });
    const rate = h("select", { "aria-label": "Speed", onchange: () => (this.#rate = Number(rate.value)) }, ...RATES.map((value) => h("option", { value, selected: value === 1 }, `${value} ×`)));
    const frame = (name, by, label) => h("button", { type: "button", className: `icon ${name}`, "aria-label": label, title: label, onclick: () => this.step(by) });
    return h("div", { className: "player", role: "group", "aria-label": "Playback of all videos" }, this.button, frame("back", -1, "One frame back"), frame("forth", 1, "One frame on"), this.slider, rate);
  }

  #scrub() {
    const seconds = Number(this.slider.value);
    this.playing = false;
    this.time = seconds;
  }
}
