// Following requests: one follower for the whole page. Events of the few that are being rendered, one list for all others.

import { FINAL, events, get } from "./api.js";

const MOST_STREAMS = 2; // a browser opens six connections to a server, and videos need some
const SWEEP_MS = 2000;
const LISTED = 100;

/** A request that is followed: who listens, its last known state, and what stops its stream while it has one. */
class Followed {
  listeners = new Set();
  running = false;
  stop = null;

  tell(name, ...values) {
    for (const listener of [...this.listeners]) listener[name]?.(...values);
  }
}

const followed = new Map(); // by id, in the order in which they were asked for
let timer = null;

/**
 * Tell `onUpdate(status)`, `onEvent(event, data)` and `onLost(error)` of a request until it has ended, which is the last
 * update. Return what stops that. Who comes late asks for the present state first.
 */
export function follow(id, listener) {
  if (!followed.has(id)) followed.set(id, new Followed());
  followed.get(id).listeners.add(listener);
  timer ??= setInterval(sweep, SWEEP_MS);
  share();
  return () => leave(id, listener);
}

/** Follow a request to its end; return its last status. Raise the Refusal where it cannot be followed. */
export function ended(id, signal, { onUpdate, onEvent }) {
  return new Promise((resolve, reject) => {
    const stop = follow(id, {
      onUpdate: (status) => (onUpdate(status), FINAL.has(status.status) && resolve(status)),
      onEvent,
      onLost: reject,
    });
    signal.addEventListener("abort", () => (stop(), reject(signal.reason)), { once: true });
  });
}

function leave(id, listener) {
  const request = followed.get(id);
  request?.listeners.delete(listener);
  if (request && !request.listeners.size) forget(id);
}

function forget(id) {
  followed.get(id)?.stop?.abort();
  followed.delete(id);
  if (!followed.size) {
    clearInterval(timer);
    timer = null;
  }
  share();
}

// Give the streams to those that are being rendered, and what is left to the ones that were asked for first.
function share() {
  const ranked = [...followed].sort(([, one], [, other]) => other.running - one.running);
  ranked.slice(MOST_STREAMS).forEach(([, request]) => (request.stop?.abort(), (request.stop = null)));
  for (const [id, request] of ranked.slice(0, MOST_STREAMS)) if (!request.stop) stream(id, request);
}

async function stream(id, request) {
  const stop = (request.stop = new AbortController());
  try {
    for await (const { event, data } of events(id, stop.signal)) {
      if (stop.signal.aborted || followed.get(id) !== request) return;
      if (event === "done" || event === "status") update(id, data);
      else request.tell("onEvent", event, data);
    }
  } catch (error) {
    if (!stop.signal.aborted) lost(id, error);
  }
}

function update(id, status) {
  const request = followed.get(id);
  if (!request) return;
  const final = FINAL.has(status.status);
  request.running = status.status === "in_progress";
  if (final) forget(id);
  request.tell("onUpdate", status);
}

function lost(id, error) {
  const request = followed.get(id);
  forget(id);
  request?.tell("onLost", error);
}

async function sweep() {
  const waiting = [...followed].filter(([, { stop }]) => !stop).map(([id]) => id);
  if (!waiting.length || document.hidden) return;
  try {
    const { requests } = await get(`v1/requests?limit=${LISTED}`);
    const listed = new Map(requests.map((request) => [request.request_id, request]));
    for (const id of waiting) await look(id, listed.get(id));
    share();
  } catch {
    // the next sweep tries again
  }
}

async function look(id, listed) {
  try {
    update(id, listed ?? (await get(`v1/requests/${id}/status`)));
  } catch (error) {
    if (error.status !== 404) throw error;
    lost(id, error);
  }
}
