// Following many requests with few connections: events of those that are rendered, one list for all that wait.

import { FINAL, events, get } from "./api.js";

const MOST_STREAMS = 2; // a browser opens six connections to a server, and videos need some
const SWEEP_MS = 2000;
const LISTED = 100;

/** Tells `onUpdate(id, status)` and `onEvent(id, event, data)` of every id in `watch`, until it has ended. */
export class Follower {
  #open = new Map(); // id: whether a stream is open
  #stop = new AbortController();

  constructor({ onUpdate, onEvent, onLost }) {
    Object.assign(this, { onUpdate, onEvent, onLost });
  }

  watch(id) {
    this.#open.set(id, false);
    this.#fill();
    this.timer ??= setInterval(() => this.#sweep(), SWEEP_MS);
  }

  stop() {
    this.#stop.abort();
    clearInterval(this.timer);
  }

  #ended(id, status) {
    this.#open.delete(id);
    this.onUpdate(id, status);
    if (!this.#open.size) {
      clearInterval(this.timer);
      this.timer = null;
    }
    this.#fill();
  }

  #fill() {
    const streams = [...this.#open.values()].filter(Boolean).length;
    const waiting = [...this.#open].filter(([, streamed]) => !streamed).slice(0, MOST_STREAMS - streams);
    for (const [id] of waiting) this.#stream(id);
  }

  async #stream(id) {
    this.#open.set(id, true);
    try {
      for await (const { event, data } of events(id, this.#stop.signal)) {
        if (!this.#open.has(id)) return; // a sweep was first
        if (event === "done") return this.#ended(id, data);
        this.onEvent(id, event, data);
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) this.#lost(id, error);
    }
  }

  async #sweep() {
    const { signal } = this.#stop;
    try {
      const { requests } = await get(`v1/requests?limit=${LISTED}`, { signal });
      const found = new Map(requests.map((request) => [request.request_id, request]));
      for (const id of [...this.#open.keys()]) {
        const status = found.get(id) ?? (await get(`v1/requests/${id}/status`, { signal }));
        if (FINAL.has(status.status)) this.#ended(id, status);
        else this.onUpdate(id, status);
      }
    } catch (error) {
      if (error.status === 404) return this.#lostAmong();
      // the next sweep tries again
    }
  }

  // One of them was deleted; ask for each alone.
  async #lostAmong() {
    for (const id of [...this.#open.keys()]) {
      await get(`v1/requests/${id}/status`, { signal: this.#stop.signal }).catch((error) => error.status === 404 && this.#lost(id, error));
    }
  }

  #lost(id, error) {
    this.#open.delete(id);
    this.onLost(id, error);
    this.#fill();
  }
}
